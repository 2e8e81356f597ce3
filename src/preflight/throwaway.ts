import { signed } from '../pki/csr.ts';
import { ECDSA_SHA256 } from '../pki/der/algorithms.ts';
import { bitString, explicit, int, oid, seq, set, time, utf8 } from '../pki/der/der.ts';
import { formatPem } from '../pki/der/pem.ts';
import { OID } from '../pki/extensions.ts';
import { PrivateKey } from '../pki/key.ts';

/** A new key with a certificate that nobody verifies: what a TLS server needs to have at all. PEM. */
export function throwawayPair(): { readonly key: string; readonly cert: string } {
  const key = PrivateKey.generate();
  const name = seq(set(seq(oid(OID.commonName), utf8('preflight'))));
  const validity = seq(time(0), time(Date.UTC(2049, 0, 1)));
  const body = seq(explicit(0, int(2)), int(1), ECDSA_SHA256, name, validity, name, key.spki);
  const { algorithm, signature } = signed(body, key);
  return { key: key.toPem(), cert: formatPem('CERTIFICATE', seq(body, algorithm, bitString(signature))) };
}
