import { X509Certificate } from 'node:crypto';
import { decodeData } from '../../../src/gateway/publication.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { type Certificate, parseCertificates } from '../../../src/pki/certificate.ts';
import { startGoJudge } from '../servers/x509-judges.ts';

export interface PairWatch extends AsyncDisposable {
  /** Leaves in the order of their appearance, by fingerprint; each with the time of its issue. */
  readonly leaves: readonly Certificate[];
  /** Of each version of the CA Secret, the fingerprints of its roots. */
  readonly bundles: readonly (readonly string[])[];
  /** What must never happen: a pair that an upstream refuses, an older leaf after a newer one. */
  readonly violations: readonly string[];
  /** Number of versions that were checked. */
  readonly versions: number;
  /** Resolves once it holds; checked after each version. */
  until(holds: () => boolean, deadlineMs: number, what: string): Promise<void>;
}

interface Pair {
  readonly chain: string;
  readonly key: string;
}

/**
 * Checks each version that the API server ever shows of a publication's two Secrets. Go's crypto/tls is the judge: it
 * must accept the pair as a client's under the bundle in the same Secret, under the bundle in the CA Secret, and under
 * each later version of that one until the leaf expires.
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
  const judge = startGoJudge();
  let bundle = '';
  let last: Pair | undefined;
  let versions = 0;

  const refusal = async (pair: Pair, roots: string) => {
    const verdict = await (await judge).judge({ ...pair, roots, at: Date.now(), handshake: true });
    return verdict.ok ? undefined : `${verdict.stage}: ${verdict.reason}`;
  };

  const lookAtBundle = async (data: Readonly<Record<string, string | undefined>>): Promise<string[]> => {
    bundle = data['tls.crt'] ?? '';
    bundles.push(parseCertificates(bundle).map((root) => root.fingerprint));
    const found = bundle === data['ca.crt'] ? [] : [`tls.crt and ca.crt of ${place.ca} differ`];
    const isOver = (leaves.at(-1)?.notAfter ?? 0) <= Date.now();
    const refused = last && !isOver ? await refusal(last, bundle) : undefined;
    return refused === undefined ? found : [...found, `the pair in ${place.identity} is refused now: ${refused}`];
  };

  const lookAtPair = async (data: Readonly<Record<string, string | undefined>>): Promise<string[]> => {
    const pair = { chain: data['tls.crt'] ?? '', key: data['tls.key'] ?? '' };
    const found: string[] = [];
    for (const [where, roots] of [
      ['its own ca.crt', data['ca.crt'] ?? ''],
      [`the bundle in ${place.ca}`, bundle],
    ] as const) {
      const refused = await refusal(pair, roots);
      if (refused !== undefined) found.push(`refused under ${where}: ${refused}`);
    }
    last = found.length === 0 ? pair : undefined;
    const [leaf] = parseCertificates(pair.chain);
    if (!leaf) return found;
    const names = new X509Certificate(pair.chain).subjectAltName ?? '';
    const form = place.form === 'dns' ? 'DNS:' : 'URI:spiffe://';
    if (!names.includes(form)) found.push(`the leaf has no ${form} name but ${names || 'none'}`);
    const before = leaves.at(-1);
    if (leaf.fingerprint !== before?.fingerprint) {
      if (before && leaf.notBefore < before.notBefore) found.push('an older leaf replaced a newer one');
      leaves.push(leaf);
    }
    return found;
  };

  const look = async (name: string, version: string, data: Readonly<Record<string, string | undefined>>) => {
    versions += 1;
    const look = name === place.ca ? lookAtBundle : name === place.identity ? lookAtPair : undefined;
    try {
      for (const problem of (await look?.(data)) ?? []) violations.push(`${version}: ${problem}`);
    } catch (error) {
      violations.push(`${version}: ${name} cannot be read: ${(error as Error).message}`);
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
          for (const item of items)
            await look(item.metadata.name, item.metadata.resourceVersion ?? '', decodeData(item));
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
          if (type === 'ADDED' || type === 'MODIFIED') await look(name, version, decodeData(object));
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
      await (await judge)[Symbol.asyncDispose]();
    },
  };
}
