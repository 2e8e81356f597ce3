import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spiffe } from '../../adapters/spiffe/adapter.ts';
import { SpireAuthority } from '../../sandbox/spiffe/authority.ts';
import { BrokerApi } from '../../sandbox/spiffe/broker-api.ts';
import { WorkloadApi } from '../../sandbox/spiffe/workload-api.ts';
import { adapterContract } from './adapter-contract.ts';

adapterContract('spiffe, on a Unix socket', async (_host, clock) => {
  const lives = { leafLifetimeMs: 3_600_000, caLifetimeMs: 86_400_000 };
  const authority = new SpireAuthority({ clock, trustDomain: 'example.org', ...lives });
  const directory = await mkdtemp(join(tmpdir(), 'meshcert-spiffe-'));
  const socket = join(directory, 'agent.sock');
  const entries = [{ id: authority.idOf('/gateway') }];
  const api = await WorkloadApi.start({ clock, authority, listen: { path: socket }, entries });
  return {
    adapter: spiffe,
    config: { socket, id: authority.idOf('/gateway') },
    outage: (on) => api.outage(on),
    rotate: () => api.rotate(),
    stop: async () => {
      await api.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
});

adapterContract('spiffe, from a broker', async (host, clock) => {
  const lives = { leafLifetimeMs: 3_600_000, caLifetimeMs: 86_400_000 };
  const authority = new SpireAuthority({ clock, trustDomain: 'example.org', ...lives });
  const directory = await mkdtemp(join(tmpdir(), 'meshcert-spiffe-'));
  const [socket, brokerSocket] = [join(directory, 'agent.sock'), join(directory, 'broker.sock')];
  const agent = authority.idOf('/meshcert');
  const api = await WorkloadApi.start({ clock, authority, listen: { path: socket }, entries: [{ id: agent }] });
  const broker = await BrokerApi.start({ authority, listen: { path: brokerSocket }, brokers: [agent] });
  broker.objects.set(`pods.core/${host.namespace}/gateway`, authority.idOf('/gateway'));
  return {
    adapter: spiffe,
    config: { socket, id: authority.idOf('/gateway'), broker: { socket: brokerSocket, object: { name: 'gateway' } } },
    outage: (on) => (on ? broker.stop() : broker.listen()),
    rotate: () => broker.rotate(),
    stop: async () => {
      await broker.stop();
      await api.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
});
