import type { KubeConfig } from '@kubernetes/client-node';

export interface KubeConfigChoice {
  readonly kubeconfig?: string | undefined;
  readonly kubeconfigText?: string | undefined;
  readonly context?: string | undefined;
}

/** Where client-node points when it found no configuration at all. */
const NOTHING_FOUND = 'loaded-context';

/** Reads the kubeconfig anew at each call. The library is loaded at the first, since that takes most of a start. */
export function kubeConfigLoader(choice: KubeConfigChoice): () => Promise<KubeConfig> {
  return async () => {
    const { KubeConfig } = await import('@kubernetes/client-node');
    const config = new KubeConfig();
    if (choice.kubeconfigText !== undefined) config.loadFromString(choice.kubeconfigText);
    else if (choice.kubeconfig !== undefined) config.loadFromFile(choice.kubeconfig);
    else config.loadFromDefault();
    if (choice.context !== undefined) {
      if (!config.getContextObject(choice.context))
        throw new TypeError(`the kubeconfig has no context "${choice.context}"`);
      config.setCurrentContext(choice.context);
    }
    if (choice.kubeconfig === undefined && config.currentContext === NOTHING_FOUND && !config.getCurrentUser()?.token) {
      throw new TypeError('no kubeconfig: set KUBECONFIG, pass --kubeconfig, or run in a pod with a ServiceAccount');
    }
    return config;
  };
}
