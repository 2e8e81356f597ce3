import { GrpcError } from '../../../src/grpc/error.ts';

/** What Consul says when it does not do as asked, on both of its faces. */
export class Refusal extends Error {
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
  aclNotFound: () => new Refusal(403, 16, 'ACL not found'),
  aclDisabled: () => new Refusal(401, 9, 'ACL support disabled'),
  anonymous: () => new Refusal(403, 16, 'unauthenticated: anonymous token is not allowed'),
  denied: (accessor: string, service: string) =>
    new Refusal(
      403,
      7,
      `Permission denied: token with AccessorID '${accessor}' lacks permission 'service:write' on "${service}"`,
    ),
  noMethod: (method: string) => new Refusal(403, 3, `ACL not found: auth method "${method}" not found`),
  bearerRefused: () => new Refusal(403, 16, 'Permission denied: error validating signature'),
  noRule: () => new Refusal(403, 7, 'Permission denied'),
  notFromLogin: () => new Refusal(403, 7, 'Permission denied'),
  rateLimited: () => new Refusal(429, 8, 'Rate limit reached, try again later'),
  noLeader: () => new Refusal(500, 2, 'No cluster leader'),
  connectDisabled: () => new Refusal(500, 9, 'Connect must be enabled in order to use this endpoint'),
  otherDatacenter: (theirs: string, ours: string) =>
    new Refusal(500, 3, `SPIFFE ID in CSR from a different datacenter: ${theirs}, we are ${ours}`),
  noPath: () => new Refusal(500, 2, 'No path to datacenter'),
  otherTrustDomain: (theirs: string, ours: string) =>
    new Refusal(500, 3, `SPIFFE ID in CSR from a different trust domain: ${theirs}, we are ${ours}`),
  badRequest: (text: string) => new Refusal(400, 3, text),
  badCsr: (text: string) => new Refusal(500, 3, text),
  notOurs: () => new Refusal(500, 13, 'failed to sign leaf certificate'),
} as const;
