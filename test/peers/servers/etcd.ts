import { peer } from '../build.ts';
import { answers, freePorts } from './loopback.ts';
import { Daemon, type Server, scratchDir, serverOf } from './process.ts';

export interface Etcd extends Server {
  readonly url: string;
}

export async function startEtcd(): Promise<Etcd> {
  const dir = scratchDir('etcd');
  const ports = await freePorts('client', 'peer');
  const url = `http://127.0.0.1:${ports.client}`;
  const daemon = await Daemon.start({
    name: 'etcd',
    file: await peer('etcd'),
    args: [
      `--data-dir=${dir}/data`,
      `--listen-client-urls=${url}`,
      `--advertise-client-urls=${url}`,
      `--listen-peer-urls=http://127.0.0.1:${ports.peer}`,
      '--unsafe-no-fsync',
      '--log-level=warn',
    ],
    dir,
    ready: () => answers(`${url}/health`),
  });
  return { ...serverOf(daemon, dir), url };
}
