import type { Kube } from '../../src/kube/api.ts';
import { RESOURCES } from '../../src/kube/resources.ts';

/** The part of TokenReview's status that Linkerd uses. */
export interface Review {
  readonly authenticated?: boolean | undefined;
  readonly error?: string | undefined;
  readonly username?: string | undefined;
}

/** Rejects when the review itself fails. Empty audiences: those of the API server. */
export type TokenReviewer = (token: string, audiences: readonly string[]) => Promise<Review>;

export const IDENTITY_AUDIENCE = 'identity.l5d.io';

export interface TokenAccount {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

export function reviewBy(kube: Kube): TokenReviewer {
  return async (token, audiences) => {
    const review = await kube.post(RESOURCES.tokenReviews, {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      metadata: { name: '' },
      spec: { token, ...(audiences.length > 0 && { audiences }) },
    });
    const status = (review.status ?? {}) as Review & { user?: { username?: string } };
    return { authenticated: status.authenticated, error: status.error, username: status.user?.username };
  };
}

/** Without an API server: trusts a token's own claims, except for audience and expiry. */
export const reviewClaims: TokenReviewer = async (token, audiences) => {
  let claims: { sub?: string; aud?: string | string[]; exp?: number };
  try {
    claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  } catch {
    return { authenticated: false, error: 'invalid bearer token' };
  }
  if (audiences.length > 0 && !audiences.some((audience) => [claims.aud].flat().includes(audience))) {
    return { authenticated: false, error: 'token audiences are invalid for the target audiences' };
  }
  if (claims.exp !== undefined && claims.exp * 1000 < Date.now()) {
    return { authenticated: false, error: 'token has expired' };
  }
  return { authenticated: true, username: claims.sub };
};

/** A token that `reviewClaims` accepts. */
export function sandboxToken(
  account: { readonly name: string; readonly namespace: string },
  claims: { readonly audience?: string; readonly expiresAt?: number } = {},
): string {
  const payload = {
    sub: `system:serviceaccount:${account.namespace}:${account.name}`,
    aud: [claims.audience ?? IDENTITY_AUDIENCE],
    ...(claims.expiresAt !== undefined && { exp: Math.floor(claims.expiresAt / 1000) }),
  };
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${encode({ alg: 'none' })}.${encode(payload)}.sandbox`;
}

/** `wrong`: not a ServiceAccount's token, or none at all. `denied`: reviewed, and not authenticated. */
export type TokenOwner = { readonly account: TokenAccount } | { readonly wrong: string } | { readonly denied: string };

export async function ownerOf(token: string, review: TokenReviewer): Promise<TokenOwner> {
  let status = await review(token, [IDENTITY_AUDIENCE]);
  if (status.error?.includes('token audiences')) status = await review(token, []);
  if (status.error) return { wrong: status.error };
  if (!status.authenticated) return { denied: 'token could not be authenticated' };
  const [system, kind = '', namespace = '', name = '', ...more] = (status.username ?? '').split(':');
  const labels = [kind, namespace, name].every((part) => /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(part));
  if (system !== 'system' || more.length > 0 || !labels) return { wrong: `username ${status.username} is no account` };
  return { account: { kind, namespace, name } };
}
