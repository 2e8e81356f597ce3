import { GrpcError } from '../../src/grpc/error.ts';

/** A refusal by Consul, on both of its APIs. */
export class ConsulRefusal extends Error {
  override readonly name = 'Refusal';
  readonly http: number;
  readonly grpc: number;

  constructor(http: number, grpc: number, text: string) {
    super(text);
    this.http = http;
    this.grpc = grpc;
  }

  asGrpc(): GrpcError {
    return new GrpcError(this.grpc, this.message);
  }
}

export const refusals = {
  aclNotFound: () => new ConsulRefusal(403, 16, 'ACL not found'),
  aclDisabled: () => new ConsulRefusal(401, 9, 'ACL support disabled'),
  anonymous: () => new ConsulRefusal(403, 16, 'unauthenticated: anonymous token is not allowed'),
  denied: (accessor: string, service: string) =>
    new ConsulRefusal(
      403,
      7,
      `Permission denied: token with AccessorID '${accessor}' lacks permission 'service:write' on "${service}"`,
    ),
  noMethod: (method: string) => new ConsulRefusal(403, 3, `ACL not found: auth method "${method}" not found`),
  bearerRefused: () => new ConsulRefusal(403, 16, 'Permission denied: error validating signature'),
  noRule: () => new ConsulRefusal(403, 7, 'Permission denied'),
  notFromLogin: () => new ConsulRefusal(403, 7, 'Permission denied'),
  rateLimited: () => new ConsulRefusal(429, 8, 'Rate limit reached, try again later'),
  noLeader: () => new ConsulRefusal(500, 2, 'No cluster leader'),
  connectDisabled: () => new ConsulRefusal(500, 9, 'Connect must be enabled in order to use this endpoint'),
  otherDatacenter: (theirs: string, ours: string) =>
    new ConsulRefusal(500, 3, `SPIFFE ID in CSR from a different datacenter: ${theirs}, we are ${ours}`),
  noPath: () => new ConsulRefusal(500, 2, 'No path to datacenter'),
  otherTrustDomain: (theirs: string, ours: string) =>
    new ConsulRefusal(500, 3, `SPIFFE ID in CSR from a different trust domain: ${theirs}, we are ${ours}`),
  badRequest: (text: string) => new ConsulRefusal(400, 3, text),
  badCsr: (text: string) => new ConsulRefusal(500, 3, text),
  notOurs: () => new ConsulRefusal(500, 13, 'failed to sign leaf certificate'),
} as const;
