import { type Identity, leafOf } from '../../../src/mesh/identity.ts';
import { type SandboxUpstream, startUpstream } from '../../../src/sandbox/upstream.ts';
import type { Consul } from './consul.ts';

/**
 * The public listener of a service's Connect sidecar: requires a client certificate under any root of the cluster and
 * accepts the clients that the intentions allow. It renews its own certificate when the CA changes.
 */
export function startSidecar(consul: Consul, service: string, clock: { now(): number }): Promise<SandboxUpstream> {
  let own: Identity | undefined;
  return startUpstream({
    identity() {
      const kept = own && consul.isCurrent(own) && clock.now() < halfLife(own) ? own : consul.issueServer(service);
      own = kept;
      return kept;
    },
    trust: () => consul.roots(),
    allow: (peerId) => consul.intentions.allows(peerId, service),
  });
}

function halfLife(identity: Identity): number {
  const { notBefore, notAfter } = leafOf(identity);
  return (notBefore + notAfter) / 2;
}
