import { consul as adapter } from '../../adapters/consul/adapter.ts';
import { startConsul } from '../../sandbox/consul/consul.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { FakeClock } from '../support/fake-clock.ts';
import type { RecordingHost } from '../support/recording-host.ts';
import { adapterContract } from './adapter-contract.ts';

const TOKEN_FILE = '/run/consul/token';
const BEARER = 'bearer-of-the-gateway';

adapterContract('consul over HTTP, with ACL login', async (host: RecordingHost, clock: FakeClock) => {
  const consul = await startConsul({ clock, random: () => 0.5, acl: true });
  consul.addAuthMethod({ name: 'kubernetes', bind: (bearer) => (bearer === BEARER ? 'ambassador' : undefined) });
  host.mint = () => BEARER;
  return {
    adapter,
    config: { http: { address: consul.httpAddress }, auth: { login: { method: 'kubernetes' } } },
    outage: (on) => consul.outage(on),
    rotate: () => consul.renewLeaves(),
    secrets: [BEARER],
    stop: () => consul.stop(),
  };
});

adapterContract('consul over gRPC, with TLS and a token file', async (host: RecordingHost, clock: FakeClock) => {
  const tls = SandboxCa.root({ name: 'Consul Agent CA' });
  const consul = await startConsul({ clock, random: () => 0.5, acl: true, tls });
  const { secret } = consul.createToken('ambassador');
  host.setFile(TOKEN_FILE, secret);
  host.setConfigMap({ namespace: 'emissary', name: 'consul-ca' }, { 'ca.crt': tls.certificate.pem });
  return {
    adapter,
    config: {
      datacenter: 'dc1',
      grpc: { addresses: [consul.grpcAddress], tls: { ca: { configMap: { name: 'consul-ca' } } } },
      auth: { tokenFile: TOKEN_FILE },
    },
    outage: (on) => consul.outage(on),
    changeRoots: () => consul.rotateRoot(),
    secrets: [secret],
    stop: () => consul.stop(),
  };
});
