import type { Caller } from '../../sandbox/istio/ca-service.ts';
import { readClaims } from '../../src/mesh/input.ts';

export interface TokenFields extends Caller {
  readonly audience?: string;
  /** Epoch milliseconds. */
  readonly expires?: number;
}

const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token in the form of a ServiceAccount's, unsigned: the sandbox's CA is configured whom to trust. */
export function istioToken({ namespace, account, audience = 'istio-ca', expires }: TokenFields): string {
  const claims = {
    aud: [audience],
    sub: `system:serviceaccount:${namespace}:${account}`,
    exp: Math.floor((expires ?? Date.now() + 3_600_000) / 1000),
  };
  return `${part({ alg: 'none' })}.${part(claims)}.signature`;
}

/** Like a TokenReview for audience istio-ca. */
export function readIstioToken(token: string, now = Date.now()): Caller | undefined {
  const claims = readClaims(token);
  const [, namespace, account] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(claims?.sub ?? '') ?? [];
  if (!claims?.audiences.includes('istio-ca') || (claims.expires ?? 0) <= now || !namespace || !account)
    return undefined;
  return { namespace, account };
}
