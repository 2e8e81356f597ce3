import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { kubeContract } from '../contract/kube.ts';
import { NEWEST } from './build.ts';
import { startKubeApiserver, TRUST_BUNDLES } from './servers/kube-apiserver.ts';

kubeContract('kube-apiserver', () => target([]));
kubeContract('kube-apiserver over HTTP/1.1', () => target(['--disable-http2-serving']));

async function target(flags: readonly string[]) {
  // Kubernetes 1.37 serves v1 without a flag.
  const server = await startKubeApiserver({ args: [...(NEWEST ? [] : TRUST_BUNDLES), ...flags] });
  const ca = await readFile(server.caFile);
  const cluster = { server: server.url, 'certificate-authority-data': ca.toString('base64') };
  const kubeconfig = (token: string) =>
    JSON.stringify({
      clusters: [{ name: 'real', cluster }],
      users: [{ name: 'real', user: { token } }],
      contexts: [{ name: 'real', context: { cluster: 'real', user: 'real' } }],
      'current-context': 'real',
    });
  return {
    target: {
      name: 'kube-apiserver',
      trustBundles: NEWEST ? ('v1' as const) : ('v1beta1' as const),
      kubeconfig: (token?: string) => kubeconfig(token ?? server.adminToken),
      compact: () => compact(server.etcd.url),
    },
    stop: () => server.stop(),
  };
}

/** Drops all history up to now, by etcd's HTTP gateway. */
async function compact(url: string): Promise<void> {
  const post = async (path: string, body: object) => {
    const answer = await fetch(`${url}/v3/kv/${path}`, { method: 'POST', body: JSON.stringify(body) });
    const text = await answer.text();
    assert.ok(answer.ok, text);
    return JSON.parse(text) as { header: { revision: string } };
  };
  const { header } = await post('range', { key: Buffer.from('/').toString('base64') });
  await post('compaction', { revision: header.revision, physical: true });
}
