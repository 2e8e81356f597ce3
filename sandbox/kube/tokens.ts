import { createPublicKey, type KeyObject, randomUUID, sign, verify } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { fieldsIn, type JsonFields, type Stored, valueAt } from './objects/object.ts';
import { badRequest, type Cause, invalid } from './objects/status.ts';
import type { Store } from './objects/store.ts';

/** Issuer of every token, and the default audience: the API server itself. */
export const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';

export interface User {
  readonly username: string;
  readonly uid?: string;
  readonly groups: readonly string[];
}

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

interface Signer {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
  readonly keyId: string;
}

function makeSigner(): Signer {
  const key = PrivateKey.generate();
  const privateKey = key.keyObject;
  return { publicKey: createPublicKey(privateKey), privateKey, keyId: key.publicKeyFingerprint };
}

/** An account that a finalizer keeps: its tokens are accepted for this long after its deletion. */
const DELETED_ACCOUNT_MS = 60_000;

/** JWTs have signatures without DER. */
const dsaEncoding = 'ieee-p1363';

/**
 * Signs and reads ServiceAccount tokens: real JWTs, ES256, which an API server uses whose key is of P-256. Such a key is
 * made in less than a millisecond; an RSA key takes longer than the rest of a server's start.
 */
export class IssuedTokens {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #keys = makeSigner();
  #revoked = new Set<string>();
  #refuseAll = false;

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** Answers a TokenRequest for a ServiceAccount that exists. */
  request(account: Stored, body: JsonFields): JsonFields {
    const spec = fieldsIn(body.spec);
    const audiences =
      Array.isArray(spec.audiences) && spec.audiences.length > 0 ? spec.audiences.map(String) : [API_AUDIENCE];
    const seconds = spec.expirationSeconds === undefined ? 3600 : Number(spec.expirationSeconds);
    if (seconds < 600) {
      const cause: Cause = {
        reason: 'FieldValueInvalid',
        message: `Invalid value: ${seconds}: may not specify a duration less than 10 minutes`,
        field: 'spec.expirationSeconds',
      };
      throw invalid({ group: 'authentication.k8s.io', plural: 'tokenrequests', kind: 'TokenRequest' }, '', [cause]);
    }
    const { token, expires } = this.mint(account, audiences, seconds);
    const expirationTimestamp = new Date(expires * 1000).toISOString().replace('.000Z', 'Z');
    return {
      kind: 'TokenRequest',
      apiVersion: 'authentication.k8s.io/v1',
      metadata: { name: account.metadata.name, namespace: account.metadata.namespace },
      spec: { audiences, expirationSeconds: seconds, boundObjectRef: spec.boundObjectRef ?? null },
      status: { token, expirationTimestamp },
    };
  }

  /** A token with any lifetime; tests use it to make expired ones. */
  mint(account: Stored, audiences: readonly string[], seconds: number): { token: string; expires: number } {
    const { name, namespace = '', uid } = account.metadata;
    const issued = Math.floor(this.#clock.now() / 1000);
    const claims = {
      aud: audiences,
      exp: issued + seconds,
      iat: issued,
      nbf: issued,
      iss: API_AUDIENCE,
      jti: randomUUID(),
      'kubernetes.io': { namespace, serviceaccount: { name, uid } },
      sub: `system:serviceaccount:${namespace}:${name}`,
    };
    const signed = `${encode({ alg: 'ES256', kid: this.#keys.keyId })}.${encode(claims)}`;
    const signature = sign('sha256', Buffer.from(signed), { key: this.#keys.privateKey, dsaEncoding }).toString(
      'base64url',
    );
    return { token: `${signed}.${signature}`, expires: claims.exp };
  }

  /** The account of the token, if it is valid now for one of the audiences. */
  authenticate(
    token: string,
    audiences: readonly string[] = [API_AUDIENCE],
  ): { user: User; audiences: string[] } | undefined {
    if (this.#refuseAll || this.#revoked.has(token)) return undefined;
    const [header, payload, signature] = token.split('.');
    if (!header || !payload || !signature) return undefined;
    const good = verify(
      'sha256',
      Buffer.from(`${header}.${payload}`),
      { key: this.#keys.publicKey, dsaEncoding },
      Buffer.from(signature, 'base64url'),
    );
    if (!good) return undefined;
    const claims: JsonFields = JSON.parse(Buffer.from(payload, 'base64url').toString());
    const now = this.#clock.now() / 1000;
    const meant = (claims.aud as string[]).filter((audience) => audiences.includes(audience));
    if (Number(claims.exp) <= now || Number(claims.nbf) > now + 1 || meant.length === 0) return undefined;
    const namespace = String(valueAt(claims, 'kubernetes.io', 'namespace'));
    const name = String(valueAt(claims, 'kubernetes.io', 'serviceaccount', 'name'));
    const uid = String(valueAt(claims, 'kubernetes.io', 'serviceaccount', 'uid'));
    const account = this.#store.get('/serviceaccounts', namespace, name)?.metadata;
    const deleted = Date.parse(account?.deletionTimestamp ?? '');
    if (account?.uid !== uid || deleted < this.#clock.now() - DELETED_ACCOUNT_MS) return undefined;
    const groups = ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'];
    return { user: { username: String(claims.sub), uid, groups }, audiences: meant };
  }

  revoke(token: string): void {
    this.#revoked.add(token);
  }

  /** While on, every ServiceAccount token is invalid, as if the signing key was lost. */
  refuseAll(on: boolean): void {
    this.#refuseAll = on;
  }

  review(body: JsonFields, known: (token: string) => User | undefined): JsonFields {
    const spec = fieldsIn(body.spec);
    if (typeof spec.token !== 'string') throw badRequest('token is required for TokenReview in authentication');
    const wanted =
      Array.isArray(spec.audiences) && spec.audiences.length > 0 ? spec.audiences.map(String) : [API_AUDIENCE];
    const named = known(spec.token);
    const found = named ? { user: named, audiences: wanted } : this.authenticate(spec.token, wanted);
    const status = found
      ? { authenticated: true, user: { ...found.user }, audiences: found.audiences }
      : { user: {}, error: `[invalid bearer token, ${this.#complaint(spec.token, wanted)}]` };
    return { ...body, metadata: {}, status };
  }

  /** Some clients recognise a token for another audience, which they review again without one, by this message. */
  #complaint(token: string, wanted: readonly string[]): string {
    const claimed = audiencesOf(token);
    const list = (audiences: readonly string[]) =>
      `[${audiences.map((audience) => JSON.stringify(audience)).join(' ')}]`;
    return this.authenticate(token, claimed)
      ? `token audiences ${list(claimed)} is invalid for the target audiences ${list(wanted)}`
      : 'token lookup failed';
  }

  /** The public key as a JWK set, for clients that verify tokens themselves. */
  keys(): JsonFields {
    return {
      keys: [{ ...this.#keys.publicKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: this.#keys.keyId }],
    };
  }
}

function audiencesOf(token: string): readonly string[] {
  try {
    const { aud } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return Array.isArray(aud) ? aud.map(String) : [];
  } catch {
    return [];
  }
}
