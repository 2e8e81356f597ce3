import { createHash, createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { inspect } from 'node:util';
import { derIn, formatPem, PkiError, parsePem } from './der.ts';
import { type KeyType, keyTypeOf, P256 } from './key-type.ts';
import { isWhole, type KeyForms, newP256, p256FormsIn, p256KeyObject, p256SpkiOf } from './p256.ts';

const REDACTED = '[redacted]';

/** DER forms by PEM label. */
const FORMS = { 'PRIVATE KEY': 'pkcs8', 'EC PRIVATE KEY': 'sec1', 'RSA PRIVATE KEY': 'pkcs1' } as const;

/**
 * A private key that does not print: JSON, inspect and string conversion give `[redacted]`. Its bytes leave only
 * through `toPem` and `keyObject`.
 */
export class PrivateKey {
  readonly #pem: string;
  /**
   * Set for keys other than P-256, whose PEM contains it; base64 of the DER: a Buffer of its size takes twice the
   * memory.
   */
  readonly #spki: string | undefined;
  /** OpenSSL's object takes some KB outside the heap; referenced weakly for a new key, which signs its request. */
  #asked: WeakRef<KeyObject> | undefined;
  #fingerprint: string | undefined;
  readonly #keyType: KeyType;

  private constructor({ pkcs8, spki }: KeyForms, keyType: KeyType) {
    this.#pem = formatPem('PRIVATE KEY', pkcs8);
    this.#spki = keyType === P256 ? undefined : spki.toString('base64');
    this.#keyType = keyType;
  }

  /** A new P-256 key: supported by every mesh and every gateway. */
  static generate(): PrivateKey {
    return new PrivateKey(newP256(), P256);
  }

  static fromKeyObject(key: KeyObject): PrivateKey {
    if (key.type !== 'private') throw new PkiError('ERR_KEY_TYPE', `a ${key.type} key is not a private key`);
    const found = new PrivateKey(formsOf(key), keyTypeOf(key));
    found.#asked = new WeakRef(key);
    return found;
  }

  /** PKCS#8, PKCS#1 or SEC1 (with or without EC PARAMETERS before it); certificates beside it are ignored. */
  static fromPem(pem: string | Uint8Array): PrivateKey {
    const keys = parsePem(pem).filter(({ label }) => label.endsWith('PRIVATE KEY'));
    const [block] = keys;
    if (!block || keys.length > 1) {
      throw new PkiError('ERR_KEY_COUNT', `input has ${keys.length} private keys; expected exactly one`);
    }
    const form = Object.entries(FORMS).find(([label]) => label === block.label)?.[1];
    if (!form)
      throw new PkiError(
        'ERR_KEY_TYPE',
        `a key of the form ${block.label} cannot be used; give PKCS#8 without a password`,
      );
    const plain = p256FormsIn(block.der);
    if (plain) return new PrivateKey(plain, P256);
    let key: KeyObject;
    let whole: boolean;
    try {
      key = createPrivateKey({ key: block.der, format: 'der', type: form });
      whole = isWhole(key);
    } catch (cause) {
      throw new PkiError('ERR_KEY_SYNTAX', `the ${block.label} block does not hold a key`, { cause });
    }
    if (whole) return PrivateKey.fromKeyObject(key);
    throw new PkiError(
      'ERR_KEY_SYNTAX',
      `the private half in the ${block.label} block does not belong to its public half`,
    );
  }

  /** SubjectPublicKeyInfo, DER. */
  get spki(): Buffer {
    return this.#spki === undefined ? p256SpkiOf(derIn(this.#pem)) : Buffer.from(this.#spki, 'base64');
  }

  /** SHA-256 of the SubjectPublicKeyInfo, hex; equals that of a certificate made for this key. */
  get publicKeyFingerprint(): string {
    this.#fingerprint ??= createHash('sha256').update(this.spki).digest('hex');
    return this.#fingerprint;
  }

  get keyType(): KeyType {
    return this.#keyType;
  }

  get keyObject(): KeyObject {
    const known = this.#asked?.deref();
    if (known) return known;
    const key = this.#keyType === P256 ? p256KeyObject(derIn(this.#pem)) : createPrivateKey(this.#pem);
    this.#asked = new WeakRef(key);
    return key;
  }

  /** PKCS#8, one block. */
  toPem(): string {
    return this.#pem;
  }

  toJSON(): string {
    return REDACTED;
  }

  toString(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }
}

function formsOf(key: KeyObject): KeyForms {
  return {
    pkcs8: key.export({ type: 'pkcs8', format: 'der' }),
    spki: createPublicKey(key).export({ type: 'spki', format: 'der' }),
  };
}
