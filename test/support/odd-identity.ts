import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  Extension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { formatPem } from '../../src/pki/der.ts';

/**
 * PEM of a server's key, of its certificate with an extension that is not DER, and of the certificate's own CA; made by
 * another library than ours.
 */
export async function oddIdentity(): Promise<{ key: string; cert: string; ca: string }> {
  const signingAlgorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const [caKeys, keys] = await Promise.all([generateKey(signingAlgorithm), generateKey(signingAlgorithm)]);
  const notBefore = new Date(Date.now() - 60_000);
  const notAfter = new Date(Date.now() + 3_600_000);
  const common = { notBefore, notAfter, signingAlgorithm };
  const root = await X509CertificateGenerator.createSelfSigned({
    ...common,
    name: 'CN=odd',
    keys: caKeys,
    extensions: [new BasicConstraintsExtension(true, undefined, true)],
  });
  const leaf = await X509CertificateGenerator.create({
    ...common,
    issuer: root.subject,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    extensions: [
      new SubjectAlternativeNameExtension([{ type: 'url', value: 'spiffe://td/ns/shop/sa/web' }]),
      new Extension('1.3.6.1.4.1.55555.1', false, Buffer.from([0xff, 0xff])),
    ],
  });
  const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  return { key: formatPem('PRIVATE KEY', key), cert: leaf.toString('pem'), ca: root.toString('pem') };
}

function generateKey(algorithm: webcrypto.EcKeyGenParams): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>;
}
