import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { MeshError, type MeshErrorCode, type Retry } from '../../src/mesh/error.ts';

interface Meaning {
  readonly code: MeshErrorCode;
  readonly retry?: Retry;
  /** What the operator should know and do; the status of the call comes before it. */
  readonly advice: string;
}

/** Waiting for somebody to mend a configuration: each attempt may cost an event on the ServiceAccount. */
const SLOWLY: Retry = { afterMs: 60_000 };

/** What each status of Certify means. The statuses of the service itself are listed in docs/linkerd.md. */
const MEANINGS: Readonly<Record<number, Meaning>> = {
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
  [grpcStatus.INVALID_ARGUMENT]: {
    code: 'ERR_MESH_TOKEN',
    advice:
      'the token is expired, for another cluster, or not of a ServiceAccount; a new one is used at the next attempt',
  },
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
    advice: 'something before it asks for credentials; correct address',
  },
  [grpcStatus.RESOURCE_EXHAUSTED]: { code: 'ERR_MESH_RATE_LIMITED', advice: 'it is overloaded' },
  [grpcStatus.UNIMPLEMENTED]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    advice: 'this is not an identity service of Linkerd; correct address',
  },
};

/** The service says why it cannot sign in the words of Go's crypto/x509. */
const EXPIRED_ISSUER: Meaning = {
  code: 'ERR_MESH_UNAVAILABLE',
  advice: 'its issuer certificate has expired; run "linkerd check --proxy" and renew the issuer',
};

const OTHER: Meaning = { code: 'ERR_MESH_BAD_RESPONSE', advice: 'Linkerd does not answer so' };

const UNTRUSTED: Meaning = {
  code: 'ERR_MESH_TLS',
  advice:
    'it does not prove that name under the trust roots; check controlPlaneNamespace and trustDomain, that ConfigMap linkerd-identity-trust-roots is what the control plane runs with, and that the agent has no Linkerd sidecar (linkerd.io/inject: disabled)',
};

const UNREACHABLE: Meaning = {
  code: 'ERR_MESH_UNREACHABLE',
  advice: 'no connection; check address, DNS, network policies and that linkerd-identity runs',
};

/** A failed Certify as the one error that the agent acts on. Anything that is not a failed call is passed through. */
export function certifyError(cause: unknown, address: string, serverName: string): unknown {
  if (!(cause instanceof GrpcError)) return cause;
  const { code, retry, advice } =
    cause.reach === 'untrusted'
      ? UNTRUSTED
      : cause.reach === 'unconnected'
        ? UNREACHABLE
        : cause.status === grpcStatus.UNKNOWN && /has expired/.test(cause.details)
          ? EXPIRED_ISSUER
          : (MEANINGS[cause.status] ?? OTHER);
  const message = `identity service ${serverName} at ${address}: ${cause.said}; ${advice}`;
  return new MeshError(code, message, { cause, ...(retry === undefined ? {} : { retry }) });
}
