import assert from 'node:assert/strict';
import { it } from 'node:test';
import { eventually } from './parts/eventually.ts';
import {
  configMap,
  envoyProxy,
  fromSecret,
  gateway,
  policy,
  portOf,
  route,
  secret,
  serialOf,
  service,
  startGatewayLab,
  startUpstream,
  useProxy,
} from './parts/gateway-lab.ts';
import { startLoad } from './parts/load.ts';
import { authority, type KeyPair } from './servers/authority.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';

it('a proxy outlives Envoy Gateway, and takes the Secret that was replaced meanwhile; it starts with no broken pair', async () => {
  const mesh = await authority('mesh');
  const client = (): Promise<KeyPair> => mesh.issue({ uri: ['spiffe://cluster.local/ns/gw/sa/gateway'] });
  const [first, second, third] = [await client(), await client(), await client()];
  await using lab = await startGatewayLab({ apart: true });
  const { envoyGateway } = lab;
  await using upstream = await startUpstream({ leaf: await mesh.issue({ uri: [WEB] }), roots: mesh.root });
  await envoyGateway.expose(upstream.port);
  const apart = gateway('apart', useProxy('apart'));
  await lab.apply(
    configMap('mesh-ca', { 'ca.crt': mesh.root }),
    secret('client', first),
    envoyProxy('apart', fromSecret('client'), true),
    apart,
    ...service('web', upstream),
    policy('web', { sans: [WEB] }),
  );
  await using envoy = await envoyGateway.proxy('gw/apart');
  await lab.apply(route('web', [apart]));
  const log = () => envoyGateway.log() + envoy.log();
  const shows = (pair: KeyPair) =>
    eventually('the certificate', async () => (await lab.ask(apart, '/web')).seen?.serial === serialOf(pair), log);
  await shows(first);

  const load = startLoad(`http://127.0.0.1:${await envoyGateway.port(portOf(apart))}/web`, '', 25);
  try {
    await envoyGateway.kill('SIGKILL');
    await lab.apply(secret('client', second));
    for (let request = 0; request < 20; request += 1) {
      assert.equal((await lab.ask(apart, '/web')).seen?.serial, serialOf(first));
    }
    await envoyGateway.restart();
    await shows(second);
    await lab.apply(secret('client', { ...third, key: second.key }));
    const isRefused = async () => envoy.log().includes('KEY_VALUES_MISMATCH');
    await eventually('the refusal', isRefused, log);
    assert.equal((await lab.ask(apart, '/web')).seen?.serial, serialOf(second));
  } finally {
    await load.stop();
  }
  assert.deepEqual(load.failures, [], log());

  await envoy.kill('SIGKILL');
  await envoy.restart();
  for (let request = 0; request < 20; request += 1) assert.equal((await lab.ask(apart, '/web')).status, 503);
  await lab.apply(secret('client', third));
  await shows(third);
});
