import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import type { Kube } from '../kube/api.ts';
import { connect } from '../kube/client.ts';
import type { Io } from './command.ts';
import { VERSION } from './version.ts';

/** Flags of every command that talks to a cluster, as kubectl names them. */
export const CLUSTER_OPTIONS = {
  namespace: { type: 'string', short: 'n' },
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
} as const;

export const CLUSTER_USAGE = `  -n, --namespace NAME   default: the kubeconfig's
  --kubeconfig FILE      instead of KUBECONFIG
  --context NAME         context of the kubeconfig`;

export interface ClusterFlags {
  readonly namespace?: string | undefined;
  readonly kubeconfig?: string | undefined;
  readonly context?: string | undefined;
}

export function clusterOf(flags: ClusterFlags, io: Io): Kube {
  const { context } = flags;
  return connect({ kubeconfig: flags.kubeconfig ?? io.env.KUBECONFIG, context, userAgent: `meshcert/${VERSION}` });
}

/** The flag, else the namespace of the kubeconfig's context, else of the pod, else `default`. */
export function namespaceOf(flags: ClusterFlags, io: Io): string {
  return flags.namespace ?? ofKubeconfig(flags, io) ?? io.env.POD_NAMESPACE ?? 'default';
}

interface KubeconfigText {
  readonly 'current-context'?: string;
  readonly contexts?: readonly { readonly name: string; readonly context?: { readonly namespace?: string } }[];
}

function ofKubeconfig(flags: ClusterFlags, io: Io): string | undefined {
  const path = flags.kubeconfig ?? io.env.KUBECONFIG?.split(':')[0] ?? join(io.env.HOME ?? '/', '.kube', 'config');
  try {
    const config = parse(readFileSync(path, 'utf8')) as KubeconfigText | null;
    const name = flags.context ?? config?.['current-context'];
    return config?.contexts?.find((context) => context.name === name)?.context?.namespace;
  } catch {
    return undefined;
  }
}
