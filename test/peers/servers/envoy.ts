import { randomUUID } from 'node:crypto';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { peer } from '../build.ts';
import { answers, freePorts } from './loopback.ts';
import { Daemon, output, type Server, scratchDir, serverOf } from './process.ts';

export type EnvoyObject = Readonly<Record<string, unknown>>;

/** What can be done to a running Envoy, wherever it runs. */
export interface EnvoyControl {
  /** Its files. */
  readonly dir: string;
  /**
   * Replaces the whole set of clusters as one CDS update, by an atomic rename. Resolves when Envoy has accepted it,
   * rejects with Envoy's message when it refuses. One at a time.
   */
  swap(clusters: readonly EnvoyObject[]): Promise<void>;
  /** Counters and gauges whose name matches this regular expression, by name. */
  stats(filter: string): Promise<Readonly<Record<string, number>>>;
}

export interface Envoy extends Server, EnvoyControl {
  readonly dir: string;
  readonly adminUrl: string;
}

export interface EnvoyOptions {
  readonly listeners: readonly EnvoyObject[];
  /** The first set of clusters; `swap` replaces it. */
  readonly clusters: readonly EnvoyObject[];
  /** Further sections of the bootstrap. */
  readonly bootstrap?: EnvoyObject;
}

const updates = ['update_success', 'update_rejected', 'update_failure'].map((name) => `cluster_manager.cds.${name}`);
// Far above the few milliseconds of an update, far below a test's timeout.
const swapDeadlineMs = 15_000;

export async function startEnvoy(options: EnvoyOptions): Promise<Envoy> {
  const dir = scratchDir('envoy');
  const { admin } = await freePorts('admin');
  const adminUrl = `http://127.0.0.1:${admin}`;
  const place = { dir, adminUrl: () => adminUrl, log: () => daemon.log() };
  const control = await prepareEnvoy(place, options, { address: '127.0.0.1', port: admin });
  const daemon = await Daemon.start({
    name: 'envoy',
    file: await peer('envoy'),
    args: envoyFlags(dir),
    dir,
    ready: () => answers(`${adminUrl}/ready`),
  });
  return { ...serverOf(daemon, dir), ...control, adminUrl };
}

export const envoyFlags = (dir: string): string[] => [
  ...['-c', join(dir, 'envoy.json')],
  ...['--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning'],
];

/** Writes the configuration of an Envoy that is to run with `envoyFlags`, which sees `dir` under the same path. */
export async function prepareEnvoy(
  place: { readonly dir: string; readonly adminUrl: () => string; readonly log: () => string },
  options: EnvoyOptions,
  admin: { readonly address: string; readonly port: number },
): Promise<EnvoyControl> {
  const { dir } = place;
  const cds = join(dir, 'cds');
  await mkdir(cds);

  let version = 0;
  const publish = async (clusters: readonly EnvoyObject[]): Promise<void> => {
    version += 1;
    const resources = clusters.map((c) => ({ '@type': 'type.googleapis.com/envoy.config.cluster.v3.Cluster', ...c }));
    const draft = join(dir, `cds-${randomUUID()}.json`);
    await writeFile(draft, JSON.stringify({ version_info: String(version), resources }));
    await rename(draft, join(cds, 'cds.json'));
  };
  await publish(options.clusters);

  const config = {
    ...bootstrap(admin, options.listeners),
    dynamic_resources: {
      cds_config: {
        resource_api_version: 'V3',
        path_config_source: { path: join(cds, 'cds.json'), watched_directory: { path: cds } },
      },
    },
    ...options.bootstrap,
  };
  await writeFile(join(dir, 'envoy.json'), JSON.stringify(config));

  const stats: Envoy['stats'] = async (filter) => {
    const response = await fetch(`${place.adminUrl()}/stats?format=json&filter=${encodeURIComponent(filter)}`);
    const answer = (await response.json()) as { stats: { name?: string; value?: number }[] };
    return Object.fromEntries(answer.stats.flatMap((s) => (s.name === undefined ? [] : [[s.name, s.value ?? 0]])));
  };

  const swap: Envoy['swap'] = async (clusters) => {
    const counts = async () => {
      const now = await stats('^cluster_manager\\.cds\\.update_');
      return updates.map((name) => now[name] ?? 0);
    };
    const before = await counts();
    await publish(clusters);
    for (const deadline = Date.now() + swapDeadlineMs; Date.now() < deadline; await delay(5)) {
      const [taken, ...refused] = (await counts()).map((count, i) => count > (before[i] ?? 0));
      if (taken) return;
      if (refused.some(Boolean)) break;
    }
    throw new Error(`envoy did not take the clusters\n${place.log().slice(-2_000)}`);
  };

  return { dir, swap, stats };
}

/** Envoy's own verdict on a configuration: resolves when it would start, rejects with its reasons. */
export async function validateEnvoy(listeners: readonly EnvoyObject[], clusters: readonly EnvoyObject[]) {
  const config = {
    ...bootstrap({ address: '127.0.0.1', port: 0 }, listeners),
    static_resources: { listeners, clusters },
  };
  await output(await peer('envoy'), ['--mode', 'validate', '--config-yaml', JSON.stringify(config)]);
}

function bootstrap(admin: { address: string; port: number }, listeners: readonly EnvoyObject[]): EnvoyObject {
  return {
    node: { id: 'meshcert-test', cluster: 'gateway' },
    admin: { address: { socket_address: { address: admin.address, port_value: admin.port } } },
    static_resources: { listeners },
  };
}
