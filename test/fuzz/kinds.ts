import type { Judged } from './run.ts';

/** A kind of disagreement that is known and wanted. */
export interface Kind {
  /** What a certificate, chain or bundle has, as a table in the docs says it. */
  readonly what: string;
  /** Why the judges differ, and why it does no harm. */
  readonly why: string;
  /** Matches one of the labels of the case. */
  readonly labels: RegExp;
}

export interface RefusedKind extends Kind {
  /** Our code. */
  readonly code: string;
}

export interface AcceptedKind extends Kind {
  /** What Go says. */
  readonly go: RegExp;
}

/** Refused by us, accepted by OpenSSL and Go. */
export const REFUSED_BY_US: readonly RefusedKind[] = [];

/** Accepted by us and OpenSSL, refused by Go. */
export const REFUSED_BY_GO: readonly AcceptedKind[] = [];

/** The known kind of a disagreement; undefined when there is none, which is a defect. */
export function knownKind({ at, ours, openssl, go }: Judged): Kind | undefined {
  const has = ({ labels }: Kind) => at.labels.some((label) => labels.test(label));
  if (!ours.ok) return REFUSED_BY_US.find((kind) => kind.code === ours.code && has(kind));
  return openssl.ok ? REFUSED_BY_GO.find((kind) => kind.go.test(go.reason ?? '') && has(kind)) : undefined;
}
