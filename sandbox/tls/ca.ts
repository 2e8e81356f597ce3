import { type KeyObject, randomBytes } from 'node:crypto';
import { type Clock, systemClock } from '../../src/async/clock.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { Certificate } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { encodeCertificate, encodeCrl, type KeyUsage, keyIdOf, spkiOf } from './x509.ts';

export interface CaOptions {
  /** Common name of the subject. */
  readonly name?: string;
  readonly organization?: string;
  readonly clock?: Clock;
  /** Default ten years, like many meshes' roots. */
  readonly lifetimeMs?: number;
  /** How long before now it becomes valid; default one minute. */
  readonly notBeforeSkewMs?: number;
  /** Default: a new P-256 key. */
  readonly key?: PrivateKey;
  readonly uris?: readonly string[];
  /** Set if the mesh derives key identifiers by SHA-256; SHA-1 is usual. */
  readonly keyId?: 'sha1' | 'sha256';
  readonly notBefore?: number;
  readonly notAfter?: number;
  readonly serial?: bigint;
  /** Default a CA of the usual kind in meshes; differences are not inherited by CAs below. */
  readonly profile?: Profile;
  /** The differences of each leaf from a usual one. */
  readonly leaves?: LeafOptions;
}

/** How a certificate differs from a usual CA or leaf. */
interface Profile {
  readonly ca?: boolean;
  readonly pathLength?: number;
  /** Empty omits the extension. */
  readonly keyUsage?: readonly KeyUsage[];
  readonly eku?: readonly string[];
  /** Whole extensions, DER. */
  readonly more?: readonly Buffer[];
}

export interface LeafOptions {
  readonly uris?: readonly string[];
  readonly dns?: readonly string[];
  readonly ips?: readonly string[];
  readonly emails?: readonly string[];
  readonly commonName?: string;
  readonly lifetimeMs?: number;
  readonly notBeforeSkewMs?: number;
  readonly serial?: bigint;
  /** OIDs; default client and server authentication, empty omits the extension. */
  readonly eku?: readonly string[];
  /** Epoch ms; these two override the lifetime. */
  readonly notBefore?: number;
  readonly notAfter?: number;
  /** Some meshes' leaves have neither basic constraints nor a subject key identifier. */
  readonly bare?: boolean;
  /** Of X.509; default 3. */
  readonly version?: number;
  readonly keyUsage?: readonly KeyUsage[];
  /** Whole extensions, DER. */
  readonly more?: readonly Buffer[];
}

export const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
export const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';

const TEN_YEARS = 3650 * 86_400_000;
const HOUR = 3_600_000;
const MINUTE = 60_000;

/** A certificate authority that issues whatever a test requests, valid or not: tests need both. */
export class SandboxCa {
  readonly certificate: Certificate;
  /** From this intermediate up to, not including, the root; empty for a root. */
  readonly chain: readonly Certificate[];
  readonly root: Certificate;
  readonly #key: PrivateKey;
  readonly #options: CaOptions;

  private constructor(certificate: Certificate, parent: SandboxCa | undefined, key: PrivateKey, options: CaOptions) {
    this.certificate = certificate;
    this.chain = parent ? [certificate, ...parent.chain] : [];
    this.root = parent ? parent.root : certificate;
    this.#key = key;
    this.#options = options;
  }

  static root(options: CaOptions = {}): SandboxCa {
    const key = options.key ?? PrivateKey.generate();
    const subject = { commonName: options.name ?? 'Sandbox Root', organization: options.organization };
    const certificate = certify({ ...options, subject, publicKey: key, issuer: { subject, key } });
    return new SandboxCa(certificate, undefined, key, options);
  }

  /** A CA below this one. */
  intermediate(options: CaOptions = {}): SandboxCa {
    const all = { ...inherited(this.#options), ...options };
    const key = all.key ?? PrivateKey.generate();
    const subject = { commonName: all.name ?? 'Sandbox Intermediate', organization: all.organization };
    const certificate = certify({ ...all, subject, publicKey: key, issuer: this.#issuer() });
    return new SandboxCa(certificate, this, key, all);
  }

  /** The same key and subject for a new period: leaves of the old root verify under the new one, and the reverse. */
  renew(options: Pick<CaOptions, 'lifetimeMs' | 'notBefore' | 'notAfter' | 'notBeforeSkewMs'> = {}): SandboxCa {
    if (this.chain.length > 0) throw new TypeError('only a root renews itself');
    const { notBefore: _, notAfter: __, serial: ___, ...lasting } = this.#options;
    return SandboxCa.root({ ...lasting, ...options, key: this.#key });
  }

  /**
   * The other root's subject and key, signed by this one: a client that trusts this root can verify the other's leaves.
   */
  crossSign(other: SandboxCa, options: Pick<CaOptions, 'lifetimeMs' | 'notBefore' | 'notAfter'> = {}): Certificate {
    return certify({
      ...inherited(this.#options),
      ...options,
      uris: other.certificate.names.uris,
      subject: other.#subject(),
      publicKey: other.#key,
      issuer: this.#issuer(),
    });
  }

  issue(publicKey: KeyObject | PrivateKey, options: LeafOptions): Certificate {
    return Certificate.fromDer(this.encode(publicKey, options));
  }

  /** The leaf as DER, also where it is too large for a Certificate. */
  encode(publicKey: KeyObject | PrivateKey, given: LeafOptions): Buffer {
    const { clock, keyId, leaves } = this.#options;
    const options = { ...given, ...leaves };
    const validity = period(options, clock ?? systemClock, HOUR);
    return encodeCertificate({
      ...validity,
      serial: options.serial ?? randomSerial(),
      subject: { commonName: options.commonName },
      issuer: this.#subject(),
      publicKey: spkiOf(publicKey),
      signingKey: this.#key.keyObject,
      names: present({ uris: options.uris, dns: options.dns, ips: options.ips, emails: options.emails }),
      eku: options.eku ?? [SERVER_AUTH, CLIENT_AUTH],
      ca: false,
      keyUsage: options.keyUsage ?? ['digitalSignature', 'keyEncipherment'],
      more: options.more,
      version: options.version,
      basicConstraints: !options.bare,
      subjectKeyId: options.bare ? undefined : keyIdOf(spkiOf(publicKey), keyId),
      authorityKeyId: this.#keyId(),
    });
  }

  /** A new key with its leaf, the chain below the root, and the root. */
  identity(options: LeafOptions): Identity {
    const key = PrivateKey.generate();
    const leaf = this.issue(key, options);
    const id = options.uris?.[0] ?? options.dns?.[0] ?? options.commonName ?? '';
    return { id, key, chain: [leaf, ...this.chain], roots: [this.root] };
  }

  /** The list of what this CA has revoked, DER. */
  crl(
    options: {
      revoked?: readonly Certificate[];
      thisUpdate?: number;
      nextUpdate?: number;
      number?: number;
      /** Whole extensions, DER: of the list, and of each entry. */
      more?: readonly Buffer[];
      entryExtensions?: readonly Buffer[];
    } = {},
  ): Buffer {
    const now = (this.#options.clock ?? systemClock).now();
    return encodeCrl({
      issuer: this.#subject(),
      signingKey: this.#key.keyObject,
      authorityKeyId: this.#keyId(),
      number: options.number ?? 1,
      thisUpdate: options.thisUpdate ?? now - MINUTE,
      nextUpdate: options.nextUpdate ?? now + 24 * HOUR,
      revoked: (options.revoked ?? []).map(({ serial }) => serial),
      more: options.more,
      entryExtensions: options.entryExtensions,
    });
  }

  #subject(): CertificateSubject {
    const { name, organization } = this.#options;
    return { commonName: name ?? (this.chain.length > 0 ? 'Sandbox Intermediate' : 'Sandbox Root'), organization };
  }

  #keyId(): Buffer {
    return keyIdOf(spkiOf(this.#key), this.#options.keyId);
  }

  #issuer(): SigningCa {
    return { subject: this.#subject(), key: this.#key };
  }
}

interface CertificateSubject {
  readonly commonName?: string | undefined;
  readonly organization?: string | undefined;
}

interface SigningCa {
  readonly subject: CertificateSubject;
  readonly key: PrivateKey;
}

function certify(
  options: CaOptions & { subject: CertificateSubject; publicKey: PrivateKey; issuer: SigningCa },
): Certificate {
  const { profile = {} } = options;
  return Certificate.fromDer(
    encodeCertificate({
      ...period(options, options.clock ?? systemClock, TEN_YEARS),
      serial: options.serial ?? randomSerial(),
      subject: options.subject,
      issuer: options.issuer.subject,
      publicKey: spkiOf(options.publicKey),
      signingKey: options.issuer.key.keyObject,
      names: { uris: options.uris ?? [] },
      eku: profile.eku ?? [],
      ca: profile.ca ?? true,
      pathLength: profile.pathLength,
      keyUsage: profile.keyUsage ?? ['digitalSignature', 'keyCertSign', 'cRLSign'],
      more: profile.more,
      basicConstraints: true,
      subjectKeyId: keyIdOf(spkiOf(options.publicKey), options.keyId),
      authorityKeyId: keyIdOf(spkiOf(options.issuer.key), options.keyId),
    }),
  );
}

function present<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

/** What an intermediate inherits from its parent. */
function inherited(options: CaOptions): CaOptions {
  return {
    ...(options.clock === undefined ? {} : { clock: options.clock }),
    ...(options.keyId === undefined ? {} : { keyId: options.keyId }),
    ...(options.organization === undefined ? {} : { organization: options.organization }),
  };
}

function period(
  options: { lifetimeMs?: number; notBeforeSkewMs?: number; notBefore?: number; notAfter?: number },
  clock: Clock,
  lifetimeMs: number,
): { notBefore: number; notAfter: number } {
  const notBefore = options.notBefore ?? clock.now() - (options.notBeforeSkewMs ?? MINUTE);
  return { notBefore, notAfter: options.notAfter ?? clock.now() + (options.lifetimeMs ?? lifetimeMs) };
}

function randomSerial(): bigint {
  return BigInt(`0x${randomBytes(16).toString('hex')}`) >> 1n;
}
