import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto);

/** A P-256 certificate and its key: PEM, PKCS#8. `chain` is the certificate and those between it and the root. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
  readonly chain: string;
}

export interface LeafOptions {
  readonly dns?: readonly string[];
  readonly ip?: readonly string[];
  readonly uri?: readonly string[];
  readonly commonName?: string;
  readonly ttlMs?: number;
}

/** A certificate authority for servers under test. */
export interface Authority extends KeyPair {
  /** PEM of the self-signed certificate at the top. */
  readonly root: string;
  /** A leaf for both ends of TLS. */
  issue(options: LeafOptions): Promise<KeyPair>;
  intermediate(name: string, ttlMs?: number): Promise<Authority>;
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const day = 86_400_000;
const minute = 60_000;

export function authority(name: string, ttlMs = day): Promise<Authority> {
  return create(name, ttlMs);
}

/** A PKCS#10 request with an empty subject, for a new P-256 key that is thrown away, and this DNS name if any. */
export async function signingRequest(dns?: string): Promise<{ pem: string; der: Buffer }> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const extensions = dns ? [new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: dns }])] : [];
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: algorithm, extensions });
  return { pem: csr.toString('pem'), der: Buffer.from(csr.rawData) };
}

async function create(name: string, ttlMs: number, parent?: Parent): Promise<Authority> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const own = await sign(keys, `CN=${name}`, ttlMs, parent, [
    new x509.BasicConstraintsExtension(true, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
  ]);
  const root = parent?.root ?? own.pem;
  const self: Parent = { keys, certificate: own.certificate, root, chain: parent ? own.pem + parent.chain : '' };
  return {
    certificate: own.pem,
    key: await exportKey(keys),
    chain: own.pem + (parent?.chain ?? ''),
    root,
    issue: (options) => issue(self, options),
    intermediate: (child, childTtlMs = ttlMs) => create(child, childTtlMs, self),
  };
}

interface Parent {
  readonly keys: webcrypto.CryptoKeyPair;
  readonly certificate: x509.X509Certificate;
  readonly root: string;
  /** What is sent after a leaf: nothing when its issuer is the root. */
  readonly chain: string;
}

async function issue(parent: Parent, options: LeafOptions): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const names = [
    ...(options.dns ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(options.ip ?? []).map((value) => ({ type: 'ip' as const, value })),
    ...(options.uri ?? []).map((value) => ({ type: 'url' as const, value })),
  ];
  const subject = options.commonName ? `CN=${options.commonName}` : '';
  const { pem } = await sign(keys, subject, options.ttlMs ?? day, parent, [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
    // RFC 5280: critical when the subject is empty.
    new x509.SubjectAlternativeNameExtension(names, subject === ''),
  ]);
  return { certificate: pem, key: await exportKey(keys), chain: pem + parent.chain };
}

async function sign(
  keys: webcrypto.CryptoKeyPair,
  subject: string,
  ttlMs: number,
  parent: Parent | undefined,
  extensions: x509.Extension[],
): Promise<{ certificate: x509.X509Certificate; pem: string }> {
  const issuerKeys = parent?.keys ?? keys;
  const certificate = await x509.X509CertificateGenerator.create({
    subject,
    issuer: parent?.certificate.subject ?? subject,
    // A minute back, for servers that round their clocks.
    notBefore: new Date(Date.now() - minute),
    notAfter: new Date(Date.now() + ttlMs),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: issuerKeys.privateKey,
    extensions: [
      ...extensions,
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuerKeys.publicKey),
    ],
  });
  return { certificate, pem: `${certificate.toString('pem')}\n` };
}

async function exportKey(keys: webcrypto.CryptoKeyPair): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return `${x509.PemConverter.encode(der, 'PRIVATE KEY')}\n`;
}
