import { z } from 'zod';
import { MeshError } from '../../../src/mesh/error.ts';
import { parseJson } from '../../../src/mesh/input/untrusted-text.ts';
import { type Certificate, parseCertificates } from '../../../src/pki/certificate.ts';
import { PrivateKey } from '../../../src/pki/key.ts';
import { readTrust, type Trust } from './trust.ts';

/** Serial numbers are left out: as JSON numbers above 2^53 they would be read wrong. */
const rootsAnswer = z.object({
  TrustDomain: z.string(),
  Roots: z
    .array(
      z.object({
        Active: z.boolean(),
        SigningKeyID: z.string().default(''),
        RootCert: z.string(),
        IntermediateCerts: z.array(z.string()).nullish(),
      }),
    )
    .nullish(),
});

const leafAnswer = z.object({ CertPEM: z.string(), PrivateKeyPEM: z.string(), ServiceURI: z.string().default('') });

export function readRoots(what: string, body: string): Trust {
  const { TrustDomain, Roots } = parsed(what, rootsAnswer, body);
  return readTrust(
    what,
    TrustDomain,
    (Roots ?? []).map((root) => ({
      active: root.Active,
      signingKeyId: root.SigningKeyID,
      rootCert: root.RootCert,
      intermediateCerts: root.IntermediateCerts ?? [],
    })),
  );
}

/** A leaf in the agent's answer, with the key of the same answer. */
export interface ReceivedLeaf {
  readonly key: PrivateKey;
  /** Leaf first, then whatever Consul stores. */
  readonly certificates: readonly [Certificate, ...Certificate[]];
}

export function readLeaf(what: string, body: string): ReceivedLeaf {
  const { CertPEM, PrivateKeyPEM } = parsed(what, leafAnswer, body);
  try {
    const [leaf, ...rest] = parseCertificates(CertPEM);
    if (!leaf) throw new TypeError('no certificate');
    const key = PrivateKey.fromPem(PrivateKeyPEM);
    if (key.publicKeyFingerprint === leaf.publicKeyFingerprint) return { key, certificates: [leaf, ...rest] };
  } catch (cause) {
    throw new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      `${what}: a certificate or key that cannot be read; restart the agent`,
      {
        cause,
      },
    );
  }
  throw new MeshError('ERR_MESH_BAD_RESPONSE', `${what}: the key does not belong to the leaf; restart the agent`);
}

/** The error never contains the text: it may hold a key. */
export function parsed<T>(what: string, schema: z.ZodType<T>, body: string): T {
  const bad = (why: string) =>
    new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      `${what}: ${why}; is this the HTTP API of Consul, without a proxy in between?`,
    );
  let value: unknown;
  try {
    value = parseJson(body);
  } catch (error) {
    throw bad(`an answer that cannot be used: ${error instanceof Error ? error.message : 'not JSON'}`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw bad(`field ${issue?.path.join('.') || 'at the top'} is missing or of another type`);
}
