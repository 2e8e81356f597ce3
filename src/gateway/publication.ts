import type { MeshCertificateSpec } from '../config/mesh-certificate.ts';
import { describe, type KubeObject, refOf } from '../core/object.ts';
import { parseRootTimes, ROOT_TIMES_ANNOTATION } from '../core/root-times.ts';
import type { RootTimes } from '../core/trust.ts';
import { type Certificate, parseCertificates } from '../pki/certificate.ts';
import { PrivateKey } from '../pki/key.ts';
import { decodeData } from './secret-file.ts';

/** What stands in the cluster for one MeshCertificate, as far as it can be read. */
export interface Publication {
  readonly bundle: readonly Certificate[];
  readonly since: RootTimes;
  readonly identity: { readonly key: PrivateKey; readonly chain: readonly Certificate[] } | undefined;
  /** Of objects that stand but do not hold what they should; a missing object is no problem. */
  readonly problems: readonly { readonly object: string; readonly message: string }[];
}

/** Reads a publication back from its objects; others among them are passed over. Never throws. */
export function readPublication(
  spec: Pick<MeshCertificateSpec, 'secretName' | 'caSecretName'>,
  objects: Iterable<KubeObject>,
): Publication {
  const secrets = [...objects].filter(({ kind }) => kind === 'Secret');
  const problems: { object: string; message: string }[] = [];
  const read = <T>(secret: KubeObject | undefined, how: (data: Readonly<Record<string, string | undefined>>) => T) => {
    if (!secret) return undefined;
    try {
      return how(decodeData(secret));
    } catch (error) {
      problems.push({
        object: describe(refOf(secret)),
        message: error instanceof Error ? error.message : String(error),
      });
      return undefined;
    }
  };
  const named = (name: string) => secrets.find(({ metadata }) => metadata.name === name);

  const caSecret = named(spec.caSecretName);
  const pairSecret = named(spec.secretName);
  const bundle =
    read(caSecret, (data) => parseCertificates(data['tls.crt'] ?? data['ca.crt'] ?? '')) ??
    (pairSecret && bundleBeside(pairSecret)) ??
    [];
  const identity = read(pairSecret, (data) => ({
    key: PrivateKey.fromPem(data['tls.key'] ?? ''),
    chain: parseCertificates(data['tls.crt'] ?? ''),
  }));
  const since = parseRootTimes(caSecret?.metadata.annotations?.[ROOT_TIMES_ANNOTATION], bundle);
  return { bundle, since, identity, problems };
}

/** Somebody broke or deleted the CA Secret: the copy beside the pair still tells which roots were trusted. */
function bundleBeside(pairSecret: KubeObject): readonly Certificate[] | undefined {
  try {
    return parseCertificates(decodeData(pairSecret)['ca.crt'] ?? '');
  } catch {
    return undefined;
  }
}
