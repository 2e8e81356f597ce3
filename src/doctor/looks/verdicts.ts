import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, type ObjectRef } from '../../core/object.ts';
import type { Preflight } from '../../core/verify/preflight.ts';
import { verify } from '../../core/verify/verify.ts';
import { parsedValue, readPair } from '../../gateway/pair.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { pooled, type Seen } from './look.ts';

export interface Judged {
  readonly object: KubeObject;
  readonly certificate: MeshCertificate;
}

export interface VerdictOptions {
  readonly adapters: readonly Adapter[];
  readonly preflight: Preflight;
  /** Epoch ms. */
  readonly now: number;
}

/** Concurrent handshakes. */
const AT_ONCE = 2;
const FIX =
  'docs/errors.md explains the code; do not delete the Secrets, since the gateway falls back to plaintext without them';

/** The results of both judges for the pair and the bundle in the current Secrets. */
export async function lookAtVerdicts(
  judged: readonly Judged[],
  objects: readonly KubeObject[],
  options: VerdictOptions,
): Promise<Seen[]> {
  return (await pooled(judged, AT_ONCE, (one) => lookAtVerdict(one, objects, options))).flat();
}

async function lookAtVerdict(
  { object, certificate }: Judged,
  objects: readonly KubeObject[],
  { adapters, preflight, now }: VerdictOptions,
): Promise<Seen[]> {
  const { metadata, spec } = certificate;
  const { namespace = 'default' } = metadata;
  const about = { code: 'MC6012', object } as const;
  const refs = [spec.secretName, spec.caSecretName].map(
    (name): ObjectRef => ({ apiVersion: 'v1', kind: 'Secret', namespace, name }),
  );
  const [identity, ca] = refs.map(({ name }) =>
    objects.find(
      ({ kind, metadata: of }) => kind === 'Secret' && of.name === name && (of.namespace ?? 'default') === namespace,
    ),
  );
  const title = `the pair in ${refs.map(describe).join(' with the roots in ')}`;
  const read = readPair(identity, ca);
  const [key, chain, bundle] = [parsedValue(read?.key), parsedValue(read?.chain), parsedValue(read?.issuers)];
  if (!identity || !ca || !key || !chain || !bundle) {
    const message = `${title} was not judged, since it could not be read`;
    return [{ ...about, state: 'skipped', message }];
  }
  const expected = adapters.find(({ mesh }) => mesh === spec.mesh.name)?.expect(spec.mesh.config, { namespace });
  if (!expected) return [{ ...about, state: 'skipped', message: `there is no adapter for ${spec.mesh.name}` }];
  const ours = verify({ key, chain }, bundle, expected, now);
  const openssl = await preflight({ key, chain }, bundle);
  return [
    { verdict: ours, accepts: 'the checks of meshcert accept', refuses: 'the checks of meshcert refuse' },
    { verdict: openssl, accepts: 'OpenSSL accepts in a handshake', refuses: 'OpenSSL refuses in a handshake' },
  ].map(({ verdict, accepts, refuses }): Seen => {
    if (verdict.ok) return { ...about, state: 'passed', message: `${accepts} ${title}` };
    const message = `${refuses} ${title}: ${verdict.code}: ${verdict.message}`;
    return { ...about, state: 'failed', message, fix: FIX };
  });
}
