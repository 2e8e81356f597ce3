import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { askGateway } from '../../src/agent/live/request.ts';
import { systemClock } from '../../src/async/clock.ts';
import { diagnosticsUrl, type ExpectedFiles, judgeAnswer } from '../../src/gateway/emissary/loading/answer.ts';
import { secretFileName } from '../../src/gateway/emissary/reading/secret-file.ts';
import { eventually } from './parts/eventually.ts';
import { startEnvoy } from './servers/envoy.ts';
import { mtlsCluster } from './servers/envoy-config.ts';
import { scratchDir } from './servers/process.ts';

/** Files in Emissary's layout, and the expectation of a gateway that has them. */
async function files(dir: string, ca: SandboxCa) {
  const { key, chain } = ca.identity({
    uris: ['spiffe://cluster.local/ns/emissary/sa/emissary'],
    lifetimeMs: 3_600_000,
  });
  const cert = chain.map(({ pem }) => pem).join('');
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const file = secretFileName({ 'tls.crt': base64(cert), 'tls.key': base64(key.toPem()) });
  const caFile = secretFileName({ 'tls.crt': base64(ca.root.pem) });
  const place = async (secret: string, name: string, pem: string) => {
    const home = join(dir, 'emissary', 'secrets-decoded', secret);
    await mkdir(home, { recursive: true });
    await writeFile(join(home, name), pem);
    return join(home, name);
  };
  const names = { secretName: 'istio-identity', caSecretName: 'istio-ca' };
  const expected: ExpectedFiles = { digest: file, namespace: 'emissary', ...names, file, caFile };
  const cluster = mtlsCluster({
    name: 'web',
    port: 1,
    certFile: await place('istio-identity', `${file}.crt`, cert),
    keyFile: await place('istio-identity', `${file}.key`, key.toPem()),
    caFile: await place('istio-ca', `${caFile}.crt`, ca.root.pem),
  });
  return { expected, cluster };
}

it('a real Envoy reports which files it has loaded, the old ones and then the new', async () => {
  const ca = SandboxCa.root();
  const dir = scratchDir('live');
  const [old, next] = [await files(dir, ca), await files(dir, ca)];
  await using envoy = await startEnvoy({ listeners: [], clusters: [old.cluster] });
  const { signal } = new AbortController();
  const arrival = async (expected: ExpectedFiles) => {
    const answer = await askGateway(diagnosticsUrl(`${envoy.adminUrl}/certs`), systemClock, signal);
    if ('failure' in answer) throw new Error(answer.failure);
    return judgeAnswer(answer.body, expected).arrival;
  };
  assert.deepEqual([await arrival(old.expected), await arrival(next.expected)], ['live', 'stale']);
  await envoy.swap([next.cluster]);
  // Envoy counts the update before its workers have let go of the old cluster, and names both until then.
  await eventually('the new files alone', async () => (await arrival(next.expected)) === 'live');
});
