import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { MeshError, type MeshErrorCode, type Retry } from '../../src/mesh/error.ts';
import { type Claims, describeClaims } from '../../src/mesh/input.ts';

interface IstioFailure {
  readonly code: MeshErrorCode;
  readonly retry?: Retry;
  /** What to do; the message says what happened before it. */
  readonly next: string;
}

/** For failures that only a change of configuration fixes; either side may change it, so we still retry. */
const SLOWLY: Retry = { afterMs: 60_000 };

/** The meaning of each status of CreateCertificate. */
const CA: Readonly<Record<number, IstioFailure>> = {
  [grpcStatus.UNAVAILABLE]: {
    code: 'ERR_MESH_UNAVAILABLE',
    next: 'it is restarting or overloaded; see its logs if this lasts',
  },
  [grpcStatus.INTERNAL]: {
    code: 'ERR_MESH_UNAVAILABLE',
    next: 'its CA is not ready or cannot sign: see its logs and its CA certificate',
  },
  [grpcStatus.UNKNOWN]: { code: 'ERR_MESH_UNAVAILABLE', next: 'see its logs' },
  [grpcStatus.ABORTED]: { code: 'ERR_MESH_UNAVAILABLE', next: 'see its logs' },
  [grpcStatus.CANCELLED]: { code: 'ERR_MESH_UNAVAILABLE', next: 'the call was cut off; see its logs if this lasts' },
  [grpcStatus.DEADLINE_EXCEEDED]: { code: 'ERR_MESH_TIMEOUT', next: 'see its load and its logs' },
  [grpcStatus.RESOURCE_EXHAUSTED]: { code: 'ERR_MESH_RATE_LIMITED', next: 'it limits requests' },
  [grpcStatus.INVALID_ARGUMENT]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    next: "it refuses the request: lower ttl (istiod's MAX_WORKLOAD_CERT_TTL), or compare trustDomain and id with the mesh",
  },
  [grpcStatus.PERMISSION_DENIED]: {
    code: 'ERR_MESH_DENIED',
    retry: SLOWLY,
    next: 'it does not issue to this ServiceAccount; look at its policy (istio-csr: approval of CertificateRequests)',
  },
  [grpcStatus.UNIMPLEMENTED]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    next: 'no CA answers there: correct address (istiod serves it on 15012), or see whether ENABLE_CA_SERVER is off',
  },
};

/** The meaning of each status of StreamSecrets. */
const SDS: Readonly<Record<number, IstioFailure>> = {
  [grpcStatus.UNAVAILABLE]: {
    code: 'ERR_MESH_UNAVAILABLE',
    next: 'the agent is restarting, or SPIRE cannot attest this process',
  },
  [grpcStatus.INVALID_ARGUMENT]: {
    code: 'ERR_MESH_DENIED',
    next: 'SPIRE knows no such identity for this process: register it, or correct certificateName and bundleName',
  },
  [grpcStatus.PERMISSION_DENIED]: { code: 'ERR_MESH_DENIED', next: 'register this workload with SPIRE' },
  [grpcStatus.UNIMPLEMENTED]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    next: 'this socket serves no SDS: correct socket',
  },
  [grpcStatus.RESOURCE_EXHAUSTED]: { code: 'ERR_MESH_RATE_LIMITED', next: 'the agent limits requests' },
};

const SDS_OTHER: IstioFailure = {
  code: 'ERR_MESH_UNAVAILABLE',
  next: 'the agent could not get a certificate from its CA: see its logs; the published one stays',
};

const REACH = {
  unreadable: { code: 'ERR_MESH_BAD_RESPONSE', next: 'compare versions, and check which server this is' },
  untrusted: {
    code: 'ERR_MESH_TLS',
    next: 'it does not prove that name under the roots given: compare root and serverName with its certificate; after a change of the root this passes once ConfigMap istio-ca-root-cert follows',
  },
  unconnected: {
    code: 'ERR_MESH_UNREACHABLE',
    next: 'check address, DNS and network policies, and that it runs',
  },
} as const;

export interface CaCall {
  /** `CA istiod.istio-system.svc at host:port`. */
  readonly from: string;
  readonly audience: string;
  readonly clusterId: string;
  readonly claims: Claims | undefined;
  readonly now: number;
}

/** Converts a failed call of the CA to the one error that the agent acts on; anything else passes through. */
export function caError(cause: unknown, call: CaCall): unknown {
  if (!(cause instanceof GrpcError)) return cause;
  if (cause.status === grpcStatus.UNAUTHENTICATED) return unauthenticated(cause, call);
  const other: IstioFailure = {
    code: 'ERR_MESH_BAD_RESPONSE',
    next: 'this is not a response of an Istio CA; correct address',
  };
  return meshError(call.from, cause, cause.reach === 'answered' ? (CA[cause.status] ?? other) : REACH[cause.reach]);
}

/** istiod gives the same answer for every reason; the token's claims and our configuration show the likely one. */
function unauthenticated(cause: GrpcError, { from, audience, clusterId, claims, now }: CaCall): MeshError {
  const token = `the token, ${describeClaims(claims)}`;
  const meaning: IstioFailure =
    !claims || (claims.expires !== undefined && claims.expires <= now)
      ? { code: 'ERR_MESH_TOKEN', next: `${token}, has expired or is damaged; the next attempt uses a new one` }
      : !claims.audiences.includes(audience)
        ? {
            code: 'ERR_MESH_TOKEN',
            retry: SLOWLY,
            next: `${token}, lacks audience ${audience}: set audience, or the audience of the projected token`,
          }
        : {
            code: 'ERR_MESH_DENIED',
            retry: SLOWLY,
            next: `${token}, looks right; is "${clusterId}" what istiod calls this cluster (clusterId), is ${audience} among its TOKEN_AUDIENCES, and does it trust this API server's tokens?`,
          };
  return meshError(from, cause, meaning);
}

export function sdsError(cause: unknown, socket: string): unknown {
  if (!(cause instanceof GrpcError)) return cause;
  const meaning: IstioFailure =
    cause.reach === 'answered'
      ? (SDS[cause.status] ?? SDS_OTHER)
      : cause.reach === 'unreadable'
        ? REACH.unreadable
        : {
            code: 'ERR_MESH_UNREACHABLE',
            next: 'no process serves this socket: is its volume mounted here (injected pods: emptyDir workload-socket), and does the agent run?',
          };
  return meshError(`SDS socket ${socket}`, cause, meaning);
}

function meshError(from: string, cause: GrpcError, { code, retry, next }: IstioFailure): MeshError {
  const text = `${from}: ${cause.said}; ${next}`;
  return new MeshError(code, text, { cause, ...(retry === undefined ? {} : { retry }) });
}
