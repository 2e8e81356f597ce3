import { generateKeyPairSync } from 'node:crypto';
import { type CaOptions, CLIENT_AUTH, type LeafOptions, SandboxCa, SERVER_AUTH } from '../../sandbox/tls/ca.ts';
import { extension, nameConstraints } from '../../sandbox/tls/x509.ts';
import type { PresentedPair } from '../../src/core/checks.ts';
import type { VerifyCode } from '../../src/core/verify.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { bitString, children, context, explicit, int, nullValue, oid, readTlv, seq, set } from '../../src/pki/der.ts';
import { OID } from '../../src/pki/extensions.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { flaws } from './flaws.ts';
import { reworked } from './reworked.ts';

/** A pair that is refused for the content of its certificates. */
export interface PathCase {
  readonly code: VerifyCode;
  readonly name: string;
  readonly pair: PresentedPair;
  readonly bundle: readonly Certificate[];
  /** The judge that refuses it, if OpenSSL's command does not. */
  readonly refusedBy?: string;
}

export interface PathCases {
  readonly refused: readonly PathCase[];
  readonly accepted: readonly Omit<PathCase, 'code'>[];
}

const MIDDLE_NAME = 'middle';

/** Leaves for `id` under one root, all valid in `period`. */
export function pathCases(id: string, period: { readonly notBefore: number; readonly notAfter: number }): PathCases {
  const key = PrivateKey.generate();
  const rootKey = PrivateKey.generate();
  const middleKey = evenKey();
  const root = SandboxCa.root({ name: 'root', key: rootKey, ...period });
  const middle = root.intermediate({ name: MIDDLE_NAME, key: middleKey, ...period });
  const bundle = [root.certificate];
  const over = { notBefore: period.notBefore - 7_200_000, notAfter: period.notBefore };

  const under = (ca: SandboxCa, options: LeafOptions = {}): PresentedPair => ({
    key,
    chain: [ca.issue(key, { uris: [id], ...period, ...options }), ...ca.chain],
  });
  const via = (profile: CaOptions['profile'], options: LeafOptions = {}): PresentedPair =>
    under(root.intermediate({ name: MIDDLE_NAME, ...period, ...(profile && { profile }) }), options);
  const constrained = (lists: Parameters<typeof nameConstraints>[0], options: LeafOptions = {}): PresentedPair =>
    via({ more: [nameConstraints(lists)] }, options);
  const leaf = middle.issue(key, { uris: [id], ...period });
  const reworkedLeaf = (change: Parameters<typeof reworked>[2]): PresentedPair => ({
    key,
    chain: [reworked(leaf, middleKey.keyObject, change), middle.certificate],
  });
  const keyOf = (kind: 'ed448' | 'rsa1024' | 'ed25519') =>
    PrivateKey.fromKeyObject(
      kind === 'rsa1024'
        ? generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey
        : generateKeyPairSync(kind as 'ed25519').privateKey,
    );
  const uri = (host: string) => context(6, Buffer.from(host, 'latin1'));
  const dns = (host: string) => context(2, Buffer.from(host, 'latin1'));
  const version = (number: number) => explicit(0, int(number));
  const domain = /^spiffe:\/\/([^/]+)/.exec(id)?.[1] ?? '';
  const junk = (type: string, critical: boolean) => extension(type, Buffer.from('not DER'), critical);
  const weakRoot = SandboxCa.root({ name: 'weak', key: keyOf('rsa1024'), ...period });
  const doubled = extension(OID.extendedKeyUsage, seq(oid(CLIENT_AUTH)));

  const refused: PathCase[] = [
    ...flaws(domain).map(({ title, code, signer, onlyEnvoy }) => ({
      code,
      name: title,
      pair: under(signer(root, { ...period })),
      bundle,
      ...(onlyEnvoy && { refusedBy: 'Envoy' }),
    })),
    {
      code: 'ERR_VERIFY_VERSION',
      name: 'a leaf of version 4',
      pair: reworkedLeaf(([, ...rest]) => [version(3), ...rest]),
      bundle,
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_VERSION',
      name: 'a root of version 1 with extensions, beside the right one',
      pair: under(middle),
      bundle: [...bundle, reworked(root.certificate, rootKey.keyObject, ([, ...rest]) => rest)],
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_LOADING',
      name: 'a subject with an empty part',
      pair: reworkedLeaf((fields) => fields.map((field, at) => (at === 5 ? seq(set()) : field))),
      bundle,
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_LOADING',
      name: 'a public key that ends within a byte',
      pair: {
        key,
        chain: [
          leaf,
          reworked(middle.certificate, rootKey.keyObject, (fields) =>
            fields.map((field, at) => (at === 6 ? ragged(field) : field)),
          ),
        ],
      },
      bundle,
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_MALFORMED',
      name: 'a basic constraint that is not DER',
      pair: under(middle, { bare: true, more: [junk(OID.basicConstraints, false)] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_MALFORMED',
      name: 'an extension that is there twice',
      pair: under(middle, { more: [doubled] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_MALFORMED',
      name: 'a negative serial number',
      pair: reworkedLeaf((fields) => fields.map((field, at) => (at === 1 ? Buffer.of(2, 1, 0x80) : field))),
      bundle,
      refusedBy: 'Go',
    },
    {
      code: 'ERR_VERIFY_ISSUER_KEY_USAGE',
      name: 'an intermediate that may not sign certificates',
      pair: via({ keyUsage: ['digitalSignature', 'cRLSign'] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_ISSUER_KEY_TYPE',
      name: 'a root with an RSA key of 1024 bits',
      pair: under(weakRoot),
      bundle: [weakRoot.certificate],
      refusedBy: 'OpenSSL from security level 2 on',
    },
    {
      code: 'ERR_VERIFY_SIGNATURE_ALGORITHM',
      name: 'a signature whose algorithm has parameters that it does not have',
      pair: {
        key,
        chain: [withAlgorithm(leaf, middleKey, seq(oid('1.2.840.10045.4.3.2'), nullValue())), middle.certificate],
      },
      bundle,
      refusedBy: 'nobody that is known; RFC 5758 forbids it',
    },
    {
      code: 'ERR_VERIFY_CRITICAL_EXTENSION',
      name: 'a leaf with an unknown critical extension that is not DER',
      pair: under(middle, { more: [junk('1.3.6.1.4.1.55555.2', true)] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_CRITICAL_EXTENSION',
      name: 'an intermediate with policy constraints',
      pair: via({ more: [extension(OID.policyConstraints, seq(context(0, Buffer.of(0))), true)] }),
      bundle,
      refusedBy: 'Envoy and Go, which process policies always',
    },
    {
      code: 'ERR_VERIFY_EKU',
      name: 'a leaf for any purpose that is not named',
      pair: under(middle, { eku: ['2.5.29.37.0'] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      name: 'an intermediate for other trust domains',
      pair: constrained({ permitted: [uri('elsewhere.example')] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      name: 'an intermediate for hosts below the trust domain, not for itself',
      pair: constrained({ permitted: [uri(`.${domain}`)] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      name: 'a DNS name below an excluded one',
      pair: constrained({ excluded: [dns('example.com')] }, { dns: ['web.example.com'] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      name: 'a DNS name that only ends like a permitted one',
      pair: constrained({ permitted: [dns('example.com')] }, { dns: ['web.notexample.com'] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      name: 'a common name that is excluded as a DNS name',
      pair: constrained({ excluded: [dns('example.com')] }, { commonName: 'web.example.com' }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      name: 'an address outside of the permitted network',
      pair: constrained({ permitted: [context(7, Buffer.of(10, 0, 0, 0, 255, 0, 0, 0))] }, { ips: ['192.0.2.1'] }),
      bundle,
    },
    {
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      name: 'an address in the permitted network',
      pair: constrained({ permitted: [context(7, Buffer.of(10, 0, 0, 0, 255, 0, 0, 0))] }, { ips: ['10.0.2.1'] }),
      bundle,
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_MALFORMED',
      name: 'a leaf with a path length',
      pair: under(middle, { bare: true, more: [extension(OID.basicConstraints, seq(int(0)), true)] }),
      bundle,
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_LINK_EXPIRED',
      name: 'an expired certificate of the intermediate before the valid one',
      pair: {
        key,
        chain: [
          leaf,
          root.intermediate({ name: MIDDLE_NAME, key: middleKey, ...over }).certificate,
          middle.certificate,
        ],
      },
      bundle,
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_LINK_EXPIRED',
      name: 'an expired certificate of the root before the valid one',
      pair: { key, chain: [leaf, middle.certificate] },
      bundle: [SandboxCa.root({ name: 'root', key: rootKey, ...over }).certificate, root.certificate],
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_LINK_EXPIRED',
      name: 'an intermediate in the bundle, beside an expired root that issued it',
      pair: { key, chain: [leaf] },
      bundle: [middle.certificate, SandboxCa.root({ name: 'root', key: rootKey, ...over }).certificate],
      refusedBy: 'Envoy',
    },
    {
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      name: 'a constraint on directory names',
      pair: constrained({ permitted: [explicit(4, seq())] }),
      bundle,
      refusedBy: 'Go',
    },
  ];

  const crossed = root.intermediate({ name: 'rival', ...period });
  const lame = SandboxCa.root({ name: 'lame', ...period, profile: { eku: [SERVER_AUTH] } });
  const accepted: Omit<PathCase, 'code'>[] = [
    { name: 'an intermediate of path length 0', pair: via({ pathLength: 0 }), bundle },
    { name: 'an intermediate for clients only', pair: via({ eku: [CLIENT_AUTH] }), bundle },
    { name: 'an intermediate for the trust domain', pair: constrained({ permitted: [uri(domain)] }), bundle },
    {
      name: 'an intermediate for others excluded',
      pair: constrained({ excluded: [uri('elsewhere.example')] }),
      bundle,
    },
    {
      name: 'a permitted DNS domain',
      pair: constrained({ permitted: [dns('example.com')] }, { dns: ['web.Example.com'] }),
      bundle,
    },
    {
      name: 'an expired certificate of the intermediate after the valid one',
      pair: {
        key,
        chain: [
          leaf,
          middle.certificate,
          root.intermediate({ name: MIDDLE_NAME, key: middleKey, ...over }).certificate,
        ],
      },
      bundle,
    },
    {
      name: 'an expired certificate of the root after the valid one, or in the chain',
      pair: {
        key,
        chain: [leaf, middle.certificate, SandboxCa.root({ name: 'root', key: rootKey, ...over }).certificate],
      },
      bundle: [root.certificate, SandboxCa.root({ name: 'root', key: rootKey, ...over }).certificate],
    },
    { name: 'a leaf for clients only', pair: under(middle, { eku: [CLIENT_AUTH] }), bundle },
    { name: 'a leaf without a key usage', pair: under(middle, { keyUsage: [] }), bundle },
    { name: 'a critical certificate policy', pair: via({ more: [policies(true)] }), bundle },
    {
      name: 'an unknown extension that is neither critical nor DER',
      pair: under(middle, { more: [junk('1.3.6.1.4.1.55555.3', false)] }),
      bundle,
    },
    (() => {
      const ca = SandboxCa.root({ name: 'modern', key: keyOf('ed25519'), ...period });
      return { name: 'a root with an Ed25519 key', pair: under(ca), bundle: [ca.certificate] };
    })(),
    {
      name: 'a path over a cross-signed CA where the direct one leads to a root for servers only',
      pair: {
        key,
        chain: [crossed.issue(key, { uris: [id], ...period }), lame.crossSign(crossed, period), crossed.certificate],
      },
      bundle: [lame.certificate, root.certificate],
      refusedBy: 'OpenSSL, which follows the first issuer that fits',
    },
  ];
  return { refused, accepted };
}

const policies = (critical: boolean): Buffer =>
  extension(OID.certificatePolicies, seq(seq(oid('1.3.6.1.4.1.55555.9'))), critical);

/** A key whose point ends in a 0 bit, so that it is still the same point without it. */
function evenKey(): PrivateKey {
  for (;;) {
    const key = PrivateKey.generate();
    if ((key.spki.at(-1) ?? 1) % 2 === 0) return key;
  }
}

/** The same key with one bit fewer in its last byte. */
function ragged(spki: Buffer): Buffer {
  const [algorithm, key] = children(readTlv(spki));
  if (!algorithm || !key) throw new TypeError('a SubjectPublicKeyInfo has two parts');
  return seq(algorithm.raw, bitString(key.content.subarray(1), 1));
}

function withAlgorithm(leaf: Certificate, issuerKey: PrivateKey, algorithm: Buffer): Certificate {
  return reworked(
    leaf,
    issuerKey.keyObject,
    (fields) => fields.map((field, at) => (at === 2 ? algorithm : field)),
    algorithm,
  );
}
