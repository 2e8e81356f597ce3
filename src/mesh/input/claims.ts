/** The claims of a ServiceAccount's token; none of them is secret. */
export interface Claims {
  readonly sub: string | undefined;
  /** The ServiceAccount that `sub` names. */
  readonly account: { readonly namespace: string; readonly name: string } | undefined;
  readonly audiences: readonly string[];
  /** Epoch milliseconds. */
  readonly expires: number | undefined;
}

/** Undefined if the text is not a JWT. The signature is not checked: only the CA can do that. */
export function readClaims(token: string): Claims | undefined {
  const payload = token.trim().split('.')[1];
  if (!payload) return undefined;
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    if (typeof claims !== 'object' || claims === null) return undefined;
    const { sub, aud, exp } = claims as { sub?: unknown; aud?: unknown; exp?: unknown };
    const [, namespace, name] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(String(sub)) ?? [];
    return {
      sub: typeof sub === 'string' ? sub : undefined,
      account: namespace === undefined || name === undefined ? undefined : { namespace, name },
      audiences: (Array.isArray(aud) ? aud : [aud]).filter((one) => typeof one === 'string'),
      expires: typeof exp === 'number' ? exp * 1000 : undefined,
    };
  } catch {
    return undefined;
  }
}

/** `of system:serviceaccount:shop:web, audience mesh-ca, valid until …`. */
export function describeClaims(claims: Claims | undefined): string {
  if (!claims) return 'which is not a JWT';
  const { sub = 'nobody', audiences, expires } = claims;
  const until = expires === undefined ? 'without expiry' : `valid until ${new Date(expires).toISOString()}`;
  return `of ${sub}, audience ${audiences.join(', ') || 'none'}, ${until}`;
}
