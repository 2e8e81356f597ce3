import type { KubeObject } from '../core/object.ts';
import { type Certificate, parseCertificates } from '../pki/certificate.ts';
import { PrivateKey } from '../pki/key.ts';
import { upstreamTrustDomain } from './publication.ts';
import { decodeData } from './secret-data.ts';

export type Parsed<T> = { readonly value: T } | { readonly problem: string } | undefined;

/** The decoded content of a context's Secrets; undefined if there is none. */
export interface SecretPair {
  readonly chain: Parsed<readonly Certificate[]>;
  readonly key: Parsed<PrivateKey>;
  readonly keyPem: string | undefined;
  /** By which the gateway verifies upstreams. */
  readonly roots: Parsed<readonly Certificate[]>;
  /** Under which the chain must be: the same, unless the upstreams are in another trust domain. */
  readonly issuers: Parsed<readonly Certificate[]>;
}

export function readPair(identity: KubeObject | undefined, ca: KubeObject | undefined): SecretPair | undefined {
  if (!identity && !ca) return undefined;
  const data = identity ? decodeData(identity) : {};
  const bundle = ca ? decodeData(ca)['tls.crt'] : data['root-cert.pem'];
  const keyPem = data['tls.key'] ?? data['key.pem'];
  const chain = parsed(data['tls.crt'] ?? data['cert-chain.pem'], parseCertificates);
  const roots = parsed(bundle, parseCertificates);
  const issuers = upstreamTrustDomain(ca) === undefined ? roots : parsed(data['ca.crt'], parseCertificates);
  return { chain, key: parsed(keyPem, PrivateKey.fromPem), keyPem, roots, issuers };
}

function parsed<T>(pem: string | undefined, read: (pem: string) => T): Parsed<T> {
  if (pem === undefined) return undefined;
  try {
    return { value: read(pem) };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) };
  }
}

export const parsedValue = <T>(part: Parsed<T>): T | undefined => (part && 'value' in part ? part.value : undefined);
