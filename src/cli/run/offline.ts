import { parseAllDocuments } from 'yaml';
import { systemClock } from '../../async/clock.ts';
import type { KubeObject } from '../../core/object.ts';
import { trustBundleOf } from '../../kube/trust-bundles.ts';
import type { Adapter, Host } from '../../mesh/adapter.ts';
import { MeshError } from '../../mesh/error.ts';
import { silentLog } from '../../mesh/log.ts';

/** Objects in the output of `kubectl get -o yaml` or `-o json`: documents, and lists of them. */
export function parseObjects(text: string): KubeObject[] {
  const objects: KubeObject[] = [];
  const add = (value: unknown) => {
    if (typeof value !== 'object' || value === null) return;
    const { kind, apiVersion, metadata, items } = value as { items?: unknown } & Partial<KubeObject>;
    if (Array.isArray(items)) items.forEach(add);
    else if (kind && apiVersion && metadata?.name) objects.push(value as KubeObject);
  };
  for (const document of parseAllDocuments(text)) {
    const [error] = document.errors;
    if (error) throw new SyntaxError(error.message);
    add(document.toJS({ maxAliasCount: 100 }));
  }
  return objects;
}

/** A Host for what an adapter knows without any I/O: it has the given objects, no tokens and no files. */
export function offlineHost(
  { usual = {} }: Pick<Adapter, 'usual'>,
  namespace: string,
  objects: readonly KubeObject[],
  report: (error: Error) => void,
): Host {
  const nothing = () => new MeshError('ERR_MESH_UNSUPPORTED', 'nothing is asked of a mesh here', { retry: 'never' });
  return {
    clock: systemClock,
    log: silentLog,
    random: () => 0,
    namespace,
    token: () => Promise.reject(nothing()),
    async *configMap(ref) {
      const found = objects.find(
        ({ kind, metadata }) =>
          kind === 'ConfigMap' && metadata.name === ref.name && metadata.namespace === ref.namespace,
      );
      const assumed = found ? undefined : usual[ref.name];
      if (assumed) {
        report(new Error(`ConfigMap ${ref.namespace}/${ref.name} is not given; assuming ${assumed.means}`));
      }
      yield found ? ((found.data ?? {}) as Record<string, string>) : assumed?.data;
    },
    async *clusterTrustBundle(name) {
      yield trustBundleOf(
        objects.find(({ kind, metadata }) => kind === 'ClusterTrustBundle' && metadata.name === name),
      );
    },
    async *file() {
      yield undefined;
    },
    async *files(paths) {
      yield paths.map(() => undefined);
    },
    report,
  };
}
