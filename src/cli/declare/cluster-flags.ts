import { readFileSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { parse } from 'yaml';
import type { Kube } from '../../kube/api.ts';
import { type ConnectOptions, connect } from '../../kube/client.ts';
import type { Io } from './command.ts';
import { text, texts, type Values } from './flags.ts';
import { UsageError } from './usage-error.ts';
import { VERSION } from './version.ts';

const GROUP = 'Cluster flags:';

/** Flags of every command that talks to a cluster, as kubectl names them. */
export const CLUSTER_FLAGS = {
  namespace: text('-n, --namespace <name>', "Namespace (default: the kubeconfig's)")
    .offers('namespaces')
    .helpGroup(GROUP),
  kubeconfig: text('--kubeconfig <file>', 'Path of a kubeconfig, instead of $KUBECONFIG')
    .offers('files')
    .helpGroup(GROUP),
  context: text('--context <name>', 'Context of the kubeconfig').offers('contexts').helpGroup(GROUP),
  as: text('--as <user>', 'User to impersonate, such as system:serviceaccount:emissary:meshcert').helpGroup(GROUP),
  asGroup: texts('--as-group <group>', 'Group to impersonate').helpGroup(GROUP),
} as const;

export type ClusterFlags = Partial<Values<typeof CLUSTER_FLAGS>>;

/** A user waits at a terminal: an API server that does not answer within this time is reported. */
const DEADLINE_MS = 10_000;

export function clusterOf(flags: ClusterFlags, io: Io, hooks: Pick<ConnectOptions, 'dated'> = {}): Kube {
  const { context, as: user, asGroup: groups = [] } = flags;
  if (user === undefined && groups.length > 0) throw new UsageError('--as-group needs --as');
  return connect({
    ...hooks,
    kubeconfig: flags.kubeconfig ?? io.env.KUBECONFIG,
    context,
    userAgent: `meshcert/${VERSION}`,
    deadlineMs: DEADLINE_MS,
    ...(user === undefined ? {} : { impersonate: { user, groups } }),
  });
}

/** The flag, or else the namespace of the kubeconfig's context, of the pod, or `default`. */
export function namespaceOf(flags: ClusterFlags, io: Io): string {
  return flags.namespace ?? ofKubeconfig(flags, io) ?? io.env.POD_NAMESPACE ?? 'default';
}

interface KubeconfigText {
  readonly 'current-context'?: string | undefined;
  readonly contexts?: readonly { readonly name: string; readonly context?: { readonly namespace?: string } }[];
}

/** The names of the kubeconfig's contexts. */
export const contextsOf = (flags: ClusterFlags, io: Io): readonly string[] =>
  (kubeconfigOf(flags, io).contexts ?? []).map(({ name }) => name);

function ofKubeconfig(flags: ClusterFlags, io: Io): string | undefined {
  const config = kubeconfigOf(flags, io);
  const name = flags.context ?? config['current-context'];
  return config.contexts?.find((context) => context.name === name)?.context?.namespace;
}

/**
 * Several files are merged, as in kubectl. Unreadable ones are skipped: the command that connects to the cluster
 * reports them.
 */
function kubeconfigOf(flags: ClusterFlags, io: Io): KubeconfigText {
  const { KUBECONFIG, HOME = '/' } = io.env;
  const paths =
    flags.kubeconfig ?? (KUBECONFIG === undefined || KUBECONFIG === '' ? join(HOME, '.kube', 'config') : KUBECONFIG);
  const files = paths.split(delimiter).map((path): KubeconfigText | null => {
    try {
      // A pipe can be read once, and a device never ends.
      return statSync(path).isFile() ? parse(readFileSync(path, 'utf8')) : null;
    } catch {
      return null;
    }
  });
  return {
    'current-context': files.map((file) => file?.['current-context']).find(Boolean),
    contexts: files.flatMap((file) => file?.contexts ?? []),
  };
}
