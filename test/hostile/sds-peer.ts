import { certificateResource, rootsResource } from '../../sandbox/istio/sds-wire.ts';
import type { SandboxCa } from '../../sandbox/tls/ca.ts';
import { messageType } from '../../src/grpc/messages.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { type GrpcPeer, grpcPeer } from './grpc-peer.ts';

const PATH = '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets';
const PUSH = 'envoy.service.discovery.v3.DiscoveryResponse';
export const SPIFFE_ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';

/** An SDS socket that sends these bytes. */
export function sdsPeer(
  socket: string,
  answers: (signal: AbortSignal) => AsyncIterable<Buffer> | Iterable<Buffer>,
): Promise<GrpcPeer> {
  return grpcPeer({ path: PATH, requestStream: true, responseStream: true, address: `unix:${socket}`, answers });
}

export function push(resources: readonly { readonly type_url: string; readonly value: Buffer }[], nonce = '1'): Buffer {
  return messageType(PUSH).encode({ version_info: nonce, nonce, resources });
}

export function pushOf(ca: SandboxCa, roots: Identity['roots'], nonce: string): Buffer {
  const { chain, key } = ca.identity({ uris: [SPIFFE_ID], lifetimeMs: 600_000 });
  return push([certificateResource('default', chain, key.toPem()), rootsResource('ROOTCA', roots)], nonce);
}
