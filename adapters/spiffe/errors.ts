import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { MeshError, type MeshErrorCode, type Retry } from '../../src/mesh/error.ts';

interface WorkloadApiFailure {
  readonly code: MeshErrorCode;
  readonly retry?: Retry;
  /** What to do; what happened stands before it. */
  readonly next: string;
}

/** For what only a change of configuration resolves; it may come from either side, so the adapter looks again. */
const SLOWLY: Retry = { afterMs: 60_000 };

/** What a status of FetchX509SVID means; go-spiffe retries all but INVALID_ARGUMENT. */
const ANSWERED: Readonly<Record<number, WorkloadApiFailure>> = {
  [grpcStatus.PERMISSION_DENIED]: {
    code: 'ERR_MESH_DENIED',
    next: "no registration entry matches this process, or the entry has not reached the agent yet: register the agent's pod",
  },
  [grpcStatus.UNAUTHENTICATED]: {
    code: 'ERR_MESH_DENIED',
    next: 'the server cannot attest this process: run it on the same node, and see the logs of the SPIRE agent',
  },
  [grpcStatus.INVALID_ARGUMENT]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    next: 'this server does not take the header of the Workload API: correct socket or address',
  },
  [grpcStatus.UNIMPLEMENTED]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    next: 'there is no Workload API: correct socket or address, or see whether the agent has disable_workload_api',
  },
  [grpcStatus.RESOURCE_EXHAUSTED]: { code: 'ERR_MESH_RATE_LIMITED', next: 'the agent limits requests' },
};

/** The same for SubscribeToX509SVID of a broker. */
const BROKER_ANSWERED: Readonly<Record<number, WorkloadApiFailure>> = {
  [grpcStatus.PERMISSION_DENIED]: {
    code: 'ERR_MESH_DENIED',
    next: 'the agent of SPIRE does not let this broker use the object: see allowed_reference_types, allow_over_tcp and access_policy in its configuration, and the verb impersonate-via-spire in the RBAC of the cluster',
  },
  [grpcStatus.UNAUTHENTICATED]: {
    code: 'ERR_MESH_DENIED',
    next: 'the object cannot be attested: see whether the workload attestor k8s has a broker block, and the logs of the SPIRE agent',
  },
  [grpcStatus.NOT_FOUND]: {
    code: 'ERR_MESH_DENIED',
    next: 'the object does not exist: create it, or correct broker.object',
  },
  [grpcStatus.INVALID_ARGUMENT]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    next: 'the server does not take this reference: correct broker.object, and see whether the workload attestor k8s has a broker block',
  },
  [grpcStatus.UNIMPLEMENTED]: {
    code: 'ERR_MESH_CONFIG',
    retry: SLOWLY,
    next: 'there is no Broker API: correct the address in broker, and see whether the SPIRE agent has experimental.broker',
  },
};

const BROKER_UNTRUSTED: WorkloadApiFailure = {
  code: 'ERR_MESH_TLS',
  next: "the two do not trust each other: the agent's SPIFFE ID must be in the list brokers of the SPIRE agent, and broker.serverId must be that of the server",
};

const OTHER: WorkloadApiFailure = {
  code: 'ERR_MESH_UNAVAILABLE',
  next: 'the agent is restarting or cannot reach its server: see its logs; the published certificate stays',
};

const REACH = {
  unreadable: {
    code: 'ERR_MESH_BAD_RESPONSE',
    next: 'this is no response of a Workload API, or it has more than 1 MiB: check the server and the number of federated bundles',
  },
  untrusted: BROKER_UNTRUSTED,
  unconnected: {
    code: 'ERR_MESH_UNREACHABLE',
    next: "no process listens there: is the socket's directory or the CSI volume mounted here, and does the SPIRE agent run?",
  },
} as const;

/** A failed call as the one error that the agent acts on; anything else passes through. */
export const workloadApiError = (cause: unknown, from: string): unknown => failure(cause, from, ANSWERED);

export const brokerError = (cause: unknown, from: string): unknown =>
  failure(cause, from, { ...ANSWERED, ...BROKER_ANSWERED });

function failure(cause: unknown, from: string, answered: typeof ANSWERED): unknown {
  if (!(cause instanceof GrpcError)) return cause;
  const { reach, status, said } = cause;
  const meaning = reach === 'answered' ? (answered[status] ?? OTHER) : REACH[reach];
  const { code, next, retry } = meaning as WorkloadApiFailure;
  return new MeshError(code, `${from}: ${said}; ${next}`, { cause, ...(retry === undefined ? {} : { retry }) });
}
