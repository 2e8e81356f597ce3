import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { it } from 'node:test';
import { createServer } from 'node:tls';
import { systemClock } from '../../src/async/clock.ts';
import { ask, isWorse } from '../../src/onboard/request.ts';
import { authority } from './servers/authority.ts';
import { startEnvoy } from './servers/envoy.ts';
import { mtlsCluster } from './servers/envoy-config.ts';
import { freePorts } from './servers/loopback.ts';
import { scratchDir } from './servers/process.ts';

it('a real Envoy keeps a TCP connection while the upstream accepts its certificate, and ends it otherwise', async (test) => {
  const [mesh, other] = [await authority('mesh'), await authority('other')];
  const { chain, key } = await mesh.issue({ uri: ['spiffe://cluster.local/ns/shop/sa/db'] });
  const upstream = createServer({ ca: mesh.root, requestCert: true, rejectUnauthorized: true, cert: chain, key });
  upstream.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  test.after(() => upstream.close());
  const dir = scratchDir('tcp');
  const cluster = async (by: typeof mesh, name: string) => {
    const pair = await by.issue({ uri: ['spiffe://cluster.local/ns/emissary/sa/emissary'] });
    const file = async (end: string, pem: string) => {
      await writeFile(join(dir, `${name}.${end}`), pem);
      return join(dir, `${name}.${end}`);
    };
    return mtlsCluster({
      name: 'db',
      port: (upstream.address() as AddressInfo).port,
      certFile: await file('crt', pair.chain),
      keyFile: await file('key', pair.key),
      caFile: await file('ca', mesh.root),
      maxTls: 'TLSv1_3',
    });
  };
  const { tcp: port } = await freePorts('tcp');
  const listener = {
    name: 'tcp',
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    filter_chains: [
      {
        filters: [
          {
            name: 'envoy.filters.network.tcp_proxy',
            typed_config: {
              '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
              ...{ stat_prefix: 'tcp', cluster: 'db' },
            },
          },
        ],
      },
    ],
  };
  await using envoy = await startEnvoy({ listeners: [listener], clusters: [await cluster(mesh, 'good')] });
  const { signal } = new AbortController();
  const knock = () => ask('http://127.0.0.1:1', { port, host: undefined }, systemClock, signal);
  const before = [await knock()];
  assert.deepEqual(before, [{ open: true }]);
  await envoy.swap([await cluster(other, 'bad')]);
  const after = await knock();
  assert.match(JSON.stringify(after), /the gateway ended the connection/);
  assert.ok(isWorse(after, before));
  test.diagnostic(JSON.stringify(after));
});
