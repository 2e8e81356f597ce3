import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { KubeConfig, User } from '@kubernetes/client-node';
import { parse } from 'yaml';

export interface KubeConfigChoice {
  /** Path of a file. */
  readonly kubeconfig?: string | undefined;
  /** Wins over the path. */
  readonly kubeconfigText?: string | undefined;
  readonly context?: string | undefined;
}

/** Where client-node points when it found no configuration at all. */
const NOTHING_FOUND = 'http://localhost:8080';

/** Reads the kubeconfig anew at each call. The library is loaded at the first, since that takes most of a start. */
export function kubeConfigLoader(choice: KubeConfigChoice): () => Promise<KubeConfig> {
  return async () => {
    const { KubeConfig } = await import('@kubernetes/client-node');
    const config = new KubeConfig();
    const text = choice.kubeconfigText ?? (choice.kubeconfig && (await readFile(choice.kubeconfig, 'utf8')));
    if (text === undefined || text === '') {
      config.loadFromDefault();
      if (config.getCurrentCluster()?.server === NOTHING_FOUND) {
        throw new TypeError('no kubeconfig: set KUBECONFIG, pass --kubeconfig, or run in a pod with a ServiceAccount');
      }
    } else {
      const folder = choice.kubeconfigText === undefined ? dirname(choice.kubeconfig ?? '') : '.';
      config.loadFromString(text);
      config.makePathsAbsolute(folder);
      config.users = withTokenFiles(config.users, text, folder);
    }
    if (choice.context !== undefined) {
      if (!config.getContextObject(choice.context)) {
        throw new TypeError(`the kubeconfig has no context "${choice.context}"`);
      }
      config.setCurrentContext(choice.context);
    }
    return config;
  };
}

/** `tokenFile` as kubectl knows it; client-node reads such a file only for the pod's own ServiceAccount. */
function withTokenFiles(users: readonly User[], text: string, folder: string): User[] {
  const entries: { name?: string; user?: { tokenFile?: string } }[] = parse(text)?.users ?? [];
  return users.map((user) => {
    const tokenFile = entries.find((entry) => entry.name === user.name)?.user?.tokenFile;
    if (tokenFile === undefined) return user;
    return { ...user, authProvider: { name: 'tokenFile', config: { tokenFile: resolve(folder, tokenFile) } } };
  });
}
