import { delimiter, dirname, resolve } from 'node:path';
import type { KubeConfig, User } from '@kubernetes/client-node';
import { parse } from 'yaml';
import { KubeconfigError, KubeError } from './error.ts';
import { parseProxy } from './proxy.ts';
import { FileError, readRegularFile } from './regular-file.ts';

export interface KubeConfigChoice {
  /** Path of a file. */
  readonly kubeconfig?: string | undefined;
  /** Wins over the path. */
  readonly kubeconfigText?: string | undefined;
  readonly context?: string | undefined;
}

/** The server that client-node uses when it found no configuration at all. */
const NOTHING_FOUND = 'http://localhost:8080';

/** For the start of a long-lived process: without a usable kubeconfig there is nothing to retry. */
export async function requireKubeconfig(choice: KubeConfigChoice): Promise<void> {
  try {
    const cluster = (await kubeConfigLoader(choice)()).getCurrentCluster();
    if (!cluster)
      throw new KubeconfigError('the kubeconfig has no current context with a cluster; name one with --context');
    if (!URL.canParse(cluster.server))
      throw new KubeconfigError('the server of the kubeconfig is not a URL; correct it');
    if (cluster.proxyUrl) parseProxy(cluster.proxyUrl);
  } catch (cause) {
    if (!(cause instanceof KubeconfigError)) throw cause;
    throw new KubeError('ERR_KUBE_CONFIG', cause.message, { status: 0, cause });
  }
}

/**
 * Reads the kubeconfig at each call. The library is loaded at the first one, since loading takes most of a start.
 * Throws KubeconfigError when there is no usable kubeconfig.
 */
export function kubeConfigLoader(choice: KubeConfigChoice): () => Promise<KubeConfig> {
  return async () => {
    const config = await read(choice);
    if (choice.context !== undefined) {
      if (!config.getContextObject(choice.context)) {
        const names = config.getContexts().map(({ name }) => name);
        const known = names.length === 0 ? '' : `; it has ${names.join(', ')}`;
        throw new KubeconfigError(`the kubeconfig has no context "${choice.context}"${known}`);
      }
      config.setCurrentContext(choice.context);
    }
    return config;
  };
}

async function read({ kubeconfig, kubeconfigText }: KubeConfigChoice): Promise<KubeConfig> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const load = (text: string, folder: string, place: string): KubeConfig => {
    const config = new KubeConfig();
    try {
      config.loadFromString(text);
      config.makePathsAbsolute(folder);
      config.users = withTokenFiles(config.users, text, folder);
    } catch {
      throw new KubeconfigError(
        `${place} is not a kubeconfig: it is not YAML, or a cluster, user or context lacks a name`,
      );
    }
    return config;
  };
  if (kubeconfigText !== undefined) return load(kubeconfigText, '.', 'the text');
  const paths = (kubeconfig ?? '').split(delimiter).filter((path) => path !== '');
  if (paths.length === 0) {
    const config = new KubeConfig();
    config.loadFromDefault();
    if (config.getCurrentCluster()?.server === NOTHING_FOUND) throw new KubeconfigError(NO_KUBECONFIG);
    return config;
  }
  const [first, ...others] = (await Promise.all(paths.map((path) => textOf(path, paths.length > 1)))).flatMap(
    (text, index) => {
      const path = paths[index] ?? '';
      return text === undefined ? [] : [load(text, dirname(path), path)];
    },
  );
  if (!first) throw new KubeconfigError(`none of ${paths.join(', ')} exists: correct KUBECONFIG or --kubeconfig`);
  for (const other of others) add(first, other);
  return first;
}

/** An earlier file wins, as with kubectl. */
function add(first: KubeConfig, other: KubeConfig): void {
  const unknown = <T extends { readonly name: string }>(known: readonly T[], more: readonly T[]) =>
    more.filter(({ name }) => !known.some((one) => one.name === name));
  first.clusters = [...first.clusters, ...unknown(first.clusters, other.clusters)];
  first.users = [...first.users, ...unknown(first.users, other.users)];
  first.contexts = [...first.contexts, ...unknown(first.contexts, other.contexts)];
  if (!first.currentContext) first.currentContext = other.currentContext;
}

const NO_KUBECONFIG = 'no kubeconfig: set KUBECONFIG, pass --kubeconfig, or run in a pod with a ServiceAccount';

/** A kubeconfig of a thousand clusters has 3 MB; a device never ends. */
const LARGEST = 16 * 1024 * 1024;

/** Of several files, absent ones are skipped, as kubectl does. */
async function textOf(path: string, mayBeAbsent: boolean): Promise<string | undefined> {
  try {
    return await readRegularFile(path, LARGEST);
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    if (mayBeAbsent && error.isAbsent) return undefined;
    throw new KubeconfigError(`the kubeconfig ${path} ${error.message}; set KUBECONFIG or pass --kubeconfig`);
  }
}

/** Supports `tokenFile` as kubectl does; client-node reads such a file only for the pod's own ServiceAccount. */
function withTokenFiles(users: User[], text: string, folder: string): User[] {
  if (!text.includes('tokenFile')) return users;
  const entries: { name?: string; user?: { tokenFile?: string } }[] = parse(text)?.users ?? [];
  return users.map((user) => {
    const tokenFile = entries.find((entry) => entry.name === user.name)?.user?.tokenFile;
    if (tokenFile === undefined) return user;
    return { ...user, authProvider: { name: 'tokenFile', config: { tokenFile: resolve(folder, tokenFile) } } };
  });
}
