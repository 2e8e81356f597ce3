import { stringify } from 'yaml';

export interface KubeconfigAccess {
  readonly url: string;
  readonly caPem: string | undefined;
  readonly token: string;
  readonly namespace?: string;
}

/** A kubeconfig with one cluster, one user and one context, all named `sandbox`. */
export function kubeconfig({ url, caPem, token, namespace }: KubeconfigAccess): string {
  const trust =
    caPem === undefined
      ? { 'insecure-skip-tls-verify': true }
      : { 'certificate-authority-data': Buffer.from(caPem).toString('base64') };
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'sandbox', cluster: { server: url, ...trust } }],
    users: [{ name: 'sandbox', user: { token } }],
    contexts: [
      { name: 'sandbox', context: { cluster: 'sandbox', user: 'sandbox', ...(namespace ? { namespace } : {}) } },
    ],
    'current-context': 'sandbox',
  });
}
