import { RESOURCES } from '../../kube/resources.ts';
import { type ClusterFlags, clusterOf, contextsOf, namespaceOf } from '../declare/cluster-flags.ts';
import type { Io } from '../declare/command.ts';
import type { Completes } from '../declare/flags.ts';

/** Names for a completion, from the kubeconfig or the cluster that the flags so far name. */
export async function namesFor(
  what: Exclude<Completes, 'files'>,
  flags: ClusterFlags & { readonly allNamespaces?: unknown },
  io: Io,
): Promise<readonly string[]> {
  if (what === 'contexts') return contextsOf(flags, io);
  const kube = clusterOf({ ...flags, asGroup: [] }, io);
  try {
    const [resource, selection] =
      what === 'namespaces'
        ? [RESOURCES.namespaces, {}]
        : [RESOURCES.meshCertificates, { namespace: flags.allNamespaces ? undefined : namespaceOf(flags, io) }];
    const { items } = await kube.list(resource, selection, io.signal);
    return items.map(({ metadata }) => metadata.name);
  } finally {
    kube.close();
  }
}
