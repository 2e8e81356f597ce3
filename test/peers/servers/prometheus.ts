import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { answers, freePorts } from './loopback.ts';
import { Daemon, type Server, serverOf } from './process.ts';

type Ask = (path: string) => Promise<unknown>;

export interface Prometheus extends Server {
  /** The `data` of what its HTTP API responds. */
  readonly ask: Ask;
}

/** Prometheus with this configuration, in a directory of its own; ready once it serves and `ready` holds. */
export async function startPrometheus(
  dir: string,
  configuration: object,
  ready: (ask: Ask) => Promise<boolean> = async () => true,
): Promise<Prometheus> {
  const { web } = await freePorts('web');
  const url = `http://127.0.0.1:${web}`;
  const config = join(dir, 'prometheus.yml');
  await writeFile(config, stringify(configuration));
  const ask: Ask = async (path) => ((await (await fetch(`${url}${path}`)).json()) as { data: unknown }).data;
  const daemon = await Daemon.start({
    name: 'prometheus',
    file: 'prometheus',
    args: [
      `--config.file=${config}`,
      `--storage.tsdb.path=${join(dir, 'data')}`,
      `--web.listen-address=127.0.0.1:${web}`,
    ],
    dir,
    ready: async () => (await answers(`${url}/-/ready`)) && (await ready(ask)),
  });
  return { ...serverOf(daemon, dir), ask };
}
