import type { Clock } from '../async/clock.ts';
import { fields, type KubeObject, text } from '../objects/objects.ts';
import type { Adapter, Host } from './adapter.ts';
import { isTargeting, type TargetRules } from './cluster.ts';
import { MeshError } from './error.ts';
import { silentLog } from './log.ts';

interface OfflineHostOptions {
  readonly clock: Clock;
  readonly random?: () => number;
  readonly namespace: string;
  /** All that there is in the cluster. */
  readonly objects: readonly KubeObject[];
  /** What the adapter assumes for a ConfigMap that is not among them; each is reported. */
  readonly usual?: Adapter['usual'];
  /** Absent: there are none. */
  readonly files?: Pick<Host, 'file' | 'files'>;
  report?(error: Error): void;
}

/** A Host for what an adapter does without its mesh and without a cluster: it has the given objects and no tokens. */
export function offlineHost(options: OfflineHostOptions): Host {
  const { clock, random = () => 0, namespace, objects, usual = {}, files, report = () => {} } = options;
  return {
    clock,
    log: silentLog,
    random,
    namespace,
    token: () =>
      Promise.reject(new MeshError('ERR_MESH_UNSUPPORTED', 'nothing is asked of a mesh here', { retry: 'never' })),
    async *configMap(ref) {
      const found = objects.find(
        ({ kind, metadata }) =>
          kind === 'ConfigMap' && metadata.name === ref.name && metadata.namespace === ref.namespace,
      );
      const assumed = found ? undefined : usual[ref.name];
      if (assumed) {
        report(new Error(`ConfigMap ${ref.namespace}/${ref.name} is not given; assuming ${assumed.means}`));
      }
      yield found ? (fields(found.data) as Readonly<Record<string, string>>) : assumed?.data;
    },
    async *clusterTrustBundle(name) {
      const found = objects.find(({ kind, metadata }) => kind === 'ClusterTrustBundle' && metadata.name === name);
      yield text(fields(found?.spec).trustBundle);
    },
    file: files?.file ?? absentFile,
    files: files?.files ?? absentFiles,
    report,
  };
}

async function* absentFile(): AsyncGenerator<undefined> {
  yield undefined;
}

async function* absentFiles(paths: readonly string[]): AsyncGenerator<undefined[]> {
  yield paths.map(() => undefined);
}

/**
 * How the mesh names workloads, as far as this host shows it; undefined: it does not show it, or one identity serves
 * the mesh.
 */
export async function offlineRules(
  adapter: Adapter,
  config: unknown,
  host: Host,
  signal: AbortSignal,
): Promise<TargetRules | undefined> {
  await using opened = adapter.open(config, host);
  if (!isTargeting(opened)) return undefined;
  for await (const rules of opened.targets(signal)) return rules;
  return undefined;
}
