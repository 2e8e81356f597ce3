import { verify } from '../../../src/core/verify.ts';
import { decodeData } from '../../../src/gateway/secret-file.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { type Certificate, parseCertificates } from '../../../src/pki/certificate.ts';
import { PrivateKey } from '../../../src/pki/key.ts';

export interface PairWatch extends AsyncDisposable {
  /** Leaves in the order of their appearance, by fingerprint; each with the time of its issue. */
  readonly leaves: readonly Certificate[];
  /** Of each version of the CA Secret, the fingerprints of its roots. */
  readonly bundles: readonly (readonly string[])[];
  /** What must never be: a pair that does not match or verify, an older leaf after a newer one. */
  readonly violations: readonly string[];
  /** How many versions were looked at. */
  readonly versions: number;
  /** Resolves once it holds; asked after each version. */
  until(holds: () => boolean, deadlineMs: number, what: string): Promise<void>;
}

/**
 * Looks at each version that the API server ever shows of a publication's two Secrets, independently of the agent:
 * the pair must match, verify under the bundle in the same Secret and under the bundle that stands beside it.
 */
export function watchPair(
  kube: Kube,
  place: {
    readonly namespace: string;
    readonly identity: string;
    readonly ca: string;
    readonly form?: 'spiffe' | 'dns';
  },
): PairWatch {
  const stop = new AbortController();
  const leaves: Certificate[] = [];
  const bundles: string[][] = [];
  const violations: string[] = [];
  const waiting = new Set<() => void>();
  let bundle: readonly Certificate[] = [];
  let versions = 0;

  const look = (name: string, version: string, data: Readonly<Record<string, string | undefined>>) => {
    versions += 1;
    if (name === place.ca) {
      bundle = parseCertificates(data['tls.crt'] ?? '');
      bundles.push(bundle.map((root) => root.fingerprint));
      if (data['tls.crt'] !== data['ca.crt']) violations.push(`${version}: tls.crt and ca.crt of ${name} differ`);
    } else if (name === place.identity) {
      const pair = { key: PrivateKey.fromPem(data['tls.key'] ?? ''), chain: parseCertificates(data['tls.crt'] ?? '') };
      const wish = { form: place.form ?? 'spiffe' } as const;
      for (const [where, roots] of [
        ['its own ca.crt', parseCertificates(data['ca.crt'] ?? '')],
        [`the bundle in ${place.ca}`, bundle],
      ] as const) {
        const verdict = verify(pair, roots, wish, Date.now());
        if (!verdict.ok) violations.push(`${version}: ${verdict.code} under ${where}: ${verdict.message}`);
      }
      const [leaf] = pair.chain;
      const last = leaves.at(-1);
      if (leaf && leaf.fingerprint !== last?.fingerprint) {
        if (last && leaf.notBefore < last.notBefore) violations.push(`${version}: an older leaf replaced a newer one`);
        leaves.push(leaf);
      }
    }
    for (const wake of waiting) wake();
  };

  const follow = async () => {
    const selection = { namespace: place.namespace };
    let resourceVersion: string | undefined;
    while (!stop.signal.aborted) {
      try {
        if (resourceVersion === undefined) {
          const list = await kube.list(RESOURCES.secrets, selection, stop.signal);
          const order = (name: string) => (name === place.ca ? 0 : 1);
          const items = [...list.items].sort((a, b) => order(a.metadata.name) - order(b.metadata.name));
          for (const item of items) look(item.metadata.name, item.metadata.resourceVersion ?? '', decodeData(item));
          resourceVersion = list.resourceVersion;
        }
        for await (const { type, object } of kube.watch(
          RESOURCES.secrets,
          { ...selection, resourceVersion },
          stop.signal,
        )) {
          const { name, resourceVersion: version = '' } = object.metadata;
          resourceVersion = version;
          if (type === 'DELETED' && [place.ca, place.identity].includes(name))
            violations.push(`${version}: ${name} was deleted`);
          if (type === 'ADDED' || type === 'MODIFIED') look(name, version, decodeData(object));
        }
      } catch (error) {
        if (stop.signal.aborted) return;
        if ((error as { status?: number }).status === 410) resourceVersion = undefined;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  };
  const following = follow();

  return {
    leaves,
    bundles,
    violations,
    get versions() {
      return versions;
    },
    until: (holds, deadlineMs, what) =>
      new Promise((resolve, reject) => {
        const check = () => {
          if (!holds()) return;
          done();
          resolve();
        };
        const timer = setTimeout(() => {
          done();
          reject(
            new Error(
              `${what} did not come within ${deadlineMs} ms; ${leaves.length} leaves, ${bundles.length} bundles`,
            ),
          );
        }, deadlineMs);
        const done = () => {
          clearTimeout(timer);
          waiting.delete(check);
        };
        waiting.add(check);
        check();
      }),
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('no longer watched'));
      await following;
    },
  };
}
