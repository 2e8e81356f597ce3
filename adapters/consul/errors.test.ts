import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GrpcError } from '../../src/grpc/error.ts';
import type { MeshErrorCode } from '../../src/mesh/error.ts';
import { connectionError, GRPC_LOGIN_ROWS, grpcError, HTTP_LOGIN_ROWS, httpError } from './errors.ts';

const http: [number, string, MeshErrorCode, RegExp][] = [
  [401, 'ACL support disabled', 'ERR_MESH_CONFIG', /remove auth/],
  [403, 'ACL not found', 'ERR_MESH_TOKEN', /auth\.login/],
  [
    403,
    "Permission denied: token with AccessorID 'x' lacks permission 'service:write' on \"web\"",
    'ERR_MESH_DENIED',
    /service:write/,
  ],
  [429, 'Rate limit reached, try again later', 'ERR_MESH_RATE_LIMITED', /repeated/],
  [
    503,
    'rate limit exceeded for operation that can only be performed by the leader',
    'ERR_MESH_RATE_LIMITED',
    /repeated/,
  ],
  [500, 'No cluster leader', 'ERR_MESH_UNAVAILABLE', /repeated/],
  [
    500,
    'CA is uninitialized and unable to sign certificates yet: no root certificate',
    'ERR_MESH_UNAVAILABLE',
    /not initialized/,
  ],
  [500, 'Connect must be enabled in order to use this endpoint', 'ERR_MESH_UNSUPPORTED', /enabled = true/],
  [500, 'No path to datacenter', 'ERR_MESH_CONFIG', /datacenter/],
  [400, 'Client sent an HTTP request to an HTTPS server.\n', 'ERR_MESH_TLS', /https:\/\//],
  [
    400,
    'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature',
    'ERR_MESH_CONFIG',
    /remove namespace/,
  ],
  [404, '404 page not found', 'ERR_MESH_CONFIG', /is this the HTTP API/],
  [418, 'teapot', 'ERR_MESH_BAD_RESPONSE', /is this the HTTP API/],
];
for (const [status, body, code, message] of http) {
  test(`HTTP ${status} "${body.trim().slice(0, 40)}" is ${code}`, () => {
    const error = httpError('Consul at http://c: GET /v1/x', status, body);
    assert.equal(error.code, code);
    assert.match(error.message, message);
    assert.ok(error.message.startsWith(`Consul at http://c: GET /v1/x: HTTP status ${status};`));
  });
}

const grpc: [number, string, string, MeshErrorCode][] = [
  [2, 'UNKNOWN', 'No cluster leader', 'ERR_MESH_UNAVAILABLE'],
  [3, 'INVALID_ARGUMENT', 'SPIFFE ID in CSR from a different datacenter: dc9, we are dc1', 'ERR_MESH_CONFIG'],
  [4, 'DEADLINE_EXCEEDED', 'Deadline exceeded', 'ERR_MESH_TIMEOUT'],
  [7, 'PERMISSION_DENIED', 'Permission denied', 'ERR_MESH_DENIED'],
  [8, 'RESOURCE_EXHAUSTED', 'Rate limit reached', 'ERR_MESH_RATE_LIMITED'],
  [9, 'FAILED_PRECONDITION', 'Connect must be enabled', 'ERR_MESH_UNSUPPORTED'],
  [9, 'FAILED_PRECONDITION', 'Connect CA is not yet initialized', 'ERR_MESH_UNAVAILABLE'],
  [12, 'UNIMPLEMENTED', 'unknown service', 'ERR_MESH_UNSUPPORTED'],
  [13, 'INTERNAL', 'failed to sign leaf certificate', 'ERR_MESH_UNAVAILABLE'],
  [14, 'UNAVAILABLE', 'No connection established. Last error: connect ECONNREFUSED', 'ERR_MESH_UNREACHABLE'],
  [14, 'UNAVAILABLE', 'No connection established. Last error: self-signed certificate in chain', 'ERR_MESH_TLS'],
  [14, 'UNAVAILABLE', 'Name resolution failed for target dns:consul.invalid:8502', 'ERR_MESH_UNREACHABLE'],
  [14, 'UNAVAILABLE', 'server is shutting down', 'ERR_MESH_UNAVAILABLE'],
  [14, 'UNAVAILABLE', 'raft has no certificate for this leader', 'ERR_MESH_UNAVAILABLE'],
  [16, 'UNAUTHENTICATED', 'ACL not found', 'ERR_MESH_TOKEN'],
  [15, 'DATA_LOSS', '', 'ERR_MESH_BAD_RESPONSE'],
];
for (const [status, statusName, details, code] of grpc) {
  test(`gRPC ${statusName} "${details}" is ${code}`, () => {
    const error = grpcError('Consul server c:8502: roots', new GrpcError(status, details));
    assert.equal(error.code, code);
    assert.match(error.message, new RegExp(statusName));
  });
}

test('at login the same answers are about the auth method and the bearer token', () => {
  assert.equal(httpError('login', 403, 'ACL not found', HTTP_LOGIN_ROWS).code, 'ERR_MESH_CONFIG');
  assert.equal(httpError('login', 403, 'Permission denied', HTTP_LOGIN_ROWS).code, 'ERR_MESH_DENIED');
  const refused = new GrpcError(16, 'lookup failed');
  assert.equal(grpcError('login', refused, GRPC_LOGIN_ROWS).code, 'ERR_MESH_DENIED');
  assert.match(grpcError('login', refused, GRPC_LOGIN_ROWS).message, /audience/);
});

test('a body of any size and content becomes one short line', () => {
  const body = `first line\n\u0000\u001b[31m${'x'.repeat(100_000)}`;
  const { message } = httpError('Consul', 500, body);
  assert.ok(message.length < 500);
  assert.doesNotMatch(message, /\p{Cc}/u);
  assert.doesNotMatch(message, /first line|xxx/);
});

test('a failed connection says whether TLS or the network is the cause', () => {
  const refused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:8500'), { code: 'ECONNREFUSED' });
  const untrusted = Object.assign(new Error('unable to verify the first certificate'), {
    code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  });
  const plain = Object.assign(new Error('ssl3_get_record:wrong version number'), { code: 'EPROTO' });
  assert.equal(connectionError('Consul', refused).code, 'ERR_MESH_UNREACHABLE');
  assert.match(connectionError('Consul', untrusted).message, /tls\.ca/);
  assert.match(connectionError('Consul', plain).message, /http:\/\//);
});
