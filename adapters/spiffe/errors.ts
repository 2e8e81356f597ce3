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

const OTHER: WorkloadApiFailure = {
  code: 'ERR_MESH_UNAVAILABLE',
  next: 'the agent is restarting or cannot reach its server: see its logs; the published certificate stays',
};

const REACH = {
  unreadable: {
    code: 'ERR_MESH_BAD_RESPONSE',
    next: 'this is no response of a Workload API, or it has more than 1 MiB: check the server and the number of federated bundles',
  },
  unconnected: {
    code: 'ERR_MESH_UNREACHABLE',
    next: "no process listens there: is the socket's directory or the CSI volume mounted here, and does the SPIRE agent run?",
  },
} as const;

/** A failed call as the one error that the agent acts on; anything else passes through. */
export function workloadApiError(cause: unknown, from: string): unknown {
  if (!(cause instanceof GrpcError)) return cause;
  const { reach, status, said } = cause;
  const meaning: WorkloadApiFailure =
    reach === 'answered' ? (ANSWERED[status] ?? OTHER) : reach === 'unreadable' ? REACH.unreadable : REACH.unconnected;
  const { code, next, retry } = meaning;
  return new MeshError(code, `${from}: ${said}; ${next}`, { cause, ...(retry === undefined ? {} : { retry }) });
}
