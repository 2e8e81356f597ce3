import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { MeshError, type MeshErrorCode, type Retry } from '../../src/mesh/error.ts';
import { describeClaims, readClaims } from '../../src/mesh/input.ts';
import { AUDIENCE } from './config.ts';

interface LinkerdFailure {
  readonly code: MeshErrorCode;
  readonly retry?: Retry;
  /** What the operator should know and do; the status of the call comes before it. */
  readonly advice: string;
}

/** Waits for a fix of the configuration: each attempt may cost an event on the ServiceAccount. */
const SLOWLY: Retry = { afterMs: 60_000 };

/** The meaning of each status of Certify. The statuses of the service itself are listed in docs/linkerd.md. */
const MEANINGS: Readonly<Record<number, LinkerdFailure>> = {
  [grpcStatus.UNAVAILABLE]: {
    code: 'ERR_MESH_UNAVAILABLE',
    advice: 'it has no issuer loaded or is shutting down; see the logs of linkerd-identity',
  },
  [grpcStatus.UNKNOWN]: {
    code: 'ERR_MESH_UNAVAILABLE',
    advice:
      'its issuer certificate is probably expired or not under the trust roots; run "linkerd check --proxy" and renew the issuer',
  },
  [grpcStatus.INTERNAL]: {
    code: 'ERR_MESH_UNAVAILABLE',
    advice:
      'it could not review the token or sign; see the logs of linkerd-identity and its right to create tokenreviews',
  },
  [grpcStatus.DEADLINE_EXCEEDED]: { code: 'ERR_MESH_TIMEOUT', advice: 'it did not answer in time' },
  [grpcStatus.CANCELLED]: { code: 'ERR_MESH_UNAVAILABLE', advice: 'the call was cut off' },
  [grpcStatus.FAILED_PRECONDITION]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    advice:
      'the token belongs to another account or cluster, or the trust domain differs; compare serviceAccount, controlPlaneNamespace and trustDomain with ConfigMap linkerd-config',
  },
  [grpcStatus.PERMISSION_DENIED]: {
    code: 'ERR_MESH_DENIED',
    retry: SLOWLY,
    advice: 'a Linkerd policy in the control plane guards it; allow unauthenticated clients on its port 8080',
  },
  [grpcStatus.UNAUTHENTICATED]: {
    code: 'ERR_MESH_DENIED',
    retry: SLOWLY,
    advice: 'a proxy in front of it requires credentials; correct address',
  },
  [grpcStatus.RESOURCE_EXHAUSTED]: { code: 'ERR_MESH_RATE_LIMITED', advice: 'it is overloaded' },
  [grpcStatus.UNIMPLEMENTED]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    advice: 'this is not an identity service of Linkerd; correct address',
  },
};

/** Detected through its own proxy, whose certificate ends no later than the issuer's. */
const EXPIRED_PROXY: LinkerdFailure = {
  code: 'ERR_MESH_TLS',
  advice:
    'its proxy presents an expired certificate, mostly because the issuer certificate has expired; run "linkerd check --proxy", renew the issuer, and restart the pods of linkerd-identity',
};

/** The service reports that it cannot sign with a message of Go's crypto/x509. */
const EXPIRED_ISSUER: LinkerdFailure = {
  code: 'ERR_MESH_UNAVAILABLE',
  advice: 'its issuer certificate has expired; run "linkerd check --proxy" and renew the issuer',
};

const OTHER: LinkerdFailure = { code: 'ERR_MESH_BAD_RESPONSE', advice: 'this is not a response of Linkerd' };

const UNTRUSTED: LinkerdFailure = {
  code: 'ERR_MESH_TLS',
  advice:
    'it does not prove that name under the trust roots; check controlPlaneNamespace and trustDomain, that ConfigMap linkerd-identity-trust-roots is the one that the control plane uses, and that the agent has no Linkerd sidecar (linkerd.io/inject: disabled)',
};

const UNREACHABLE: LinkerdFailure = {
  code: 'ERR_MESH_UNREACHABLE',
  advice: 'no connection; check address, DNS, network policies and that linkerd-identity runs',
};

export interface CertifyCall {
  readonly address: string;
  readonly serverName: string;
  readonly token: string;
  /** Epoch ms. */
  readonly now: number;
}

/**
 * Converts a failed Certify to the one error that the agent acts on. Anything that is not a failed call passes through.
 */
export function certifyError(cause: unknown, call: CertifyCall): unknown {
  if (!(cause instanceof GrpcError)) return cause;
  const { code, retry, advice } = meaningOf(cause, call);
  const message = `identity service ${call.serverName} at ${call.address}: ${cause.said}; ${advice}`;
  return new MeshError(code, message, { cause, ...(retry === undefined ? {} : { retry }) });
}

function meaningOf(cause: GrpcError, call: CertifyCall): LinkerdFailure {
  const expired = /has expired/.test(cause.details);
  if (cause.reach === 'untrusted') return expired ? EXPIRED_PROXY : UNTRUSTED;
  if (cause.reach === 'unconnected') return UNREACHABLE;
  if (cause.reach === 'unreadable') return OTHER;
  if (cause.status === grpcStatus.UNKNOWN && expired) return EXPIRED_ISSUER;
  if (cause.status === grpcStatus.INVALID_ARGUMENT) return tokenMeaning(call);
  return MEANINGS[cause.status] ?? OTHER;
}

/**
 * The service gives the same answer to every token that the API server does not accept; the token's claims show the
 * likely reason.
 */
function tokenMeaning({ token: text, now }: CertifyCall): LinkerdFailure {
  const claims = readClaims(text);
  const token = `the token, ${describeClaims(claims)}`;
  if (!claims) {
    const advice = `${token}, is not accepted; mount a projected ServiceAccount token of audience ${AUDIENCE}`;
    return { code: 'ERR_MESH_TOKEN', retry: SLOWLY, advice };
  }
  if (claims.expires !== undefined && claims.expires <= now) {
    const advice = `${token}, has expired; the next attempt reads it again. If this lasts, check whether the kubelet still refreshes the token file`;
    return { code: 'ERR_MESH_TOKEN', advice };
  }
  if (!claims.audiences.includes(AUDIENCE)) {
    const advice = `${token}, lacks audience ${AUDIENCE}; project the token with this audience, or name serviceAccount instead of tokenFile`;
    return { code: 'ERR_MESH_TOKEN', retry: SLOWLY, advice };
  }
  const advice = `${token}, is not accepted although it looks right; is it from this cluster, and may linkerd-identity create tokenreviews?`;
  return { code: 'ERR_MESH_TOKEN', retry: SLOWLY, advice };
}
