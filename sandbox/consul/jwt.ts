import { createPublicKey, verify } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import type { AuthMethod } from './acl.ts';

export interface JwtMethodOptions {
  readonly name: string;
  /** PEM, of an EC P-256 key: tokens are signed with ES256. */
  readonly publicKey: string;
  readonly issuer: string;
  readonly audience: string;
  /** The claim with the name of the service that the token may write. */
  readonly serviceClaim: string;
  readonly maxTokenTtlMs?: number;
  readonly clock: Clock;
}

/** An auth method of type jwt with one binding rule: the service that a claim names. */
export function jwtMethod(options: JwtMethodOptions): AuthMethod {
  const key = createPublicKey(options.publicKey);
  return {
    name: options.name,
    maxTokenTtlMs: options.maxTokenTtlMs,
    bind(bearer) {
      const [header = '', payload = '', signature = ''] = bearer.split('.');
      const signed = Buffer.from(`${header}.${payload}`);
      const bytes = Buffer.from(signature, 'base64url');
      if (decode(header).alg !== 'ES256') throw new TypeError('only ES256 is taken');
      if (!verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, bytes)) throw new TypeError('bad signature');
      const claims = decode(payload);
      const audiences = [claims.aud].flat();
      const valid =
        claims.iss === options.issuer &&
        audiences.includes(options.audience) &&
        typeof claims.exp === 'number' &&
        claims.exp * 1000 > options.clock.now();
      if (!valid) throw new TypeError('issuer, audience or expiry does not fit');
      const service = claims[options.serviceClaim];
      return typeof service === 'string' && service !== '' ? service : undefined;
    },
  };
}

function decode(part: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(part, 'base64url').toString('utf8')) as Record<string, unknown>;
}
