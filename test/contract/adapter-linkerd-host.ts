import type { Linkerd } from '../../sandbox/linkerd/linkerd.ts';
import { controlPlaneObjects } from '../../sandbox/linkerd/objects.ts';
import { sandboxToken } from '../../sandbox/linkerd/token-review.ts';
import { type Clock, systemClock } from '../../src/async/clock.ts';
import type { TokenRequest } from '../../src/mesh/adapter.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { RecordingHost } from '../support/recording-host.ts';

/** A host whose tokens the sandbox's Linkerd accepts: of the requested account, else of the agent. */
export function linkerdHost(clock: Clock = systemClock): RecordingHost {
  const host = new RecordingHost(clock);
  host.mint = mintFor();
  return host;
}

export function mintFor(owner?: { readonly name: string; readonly namespace: string }) {
  return ({ serviceAccount, audience }: TokenRequest) =>
    sandboxToken(owner ?? serviceAccount ?? { name: 'meshcert', namespace: 'emissary' }, { audience });
}

/** The ConfigMaps of the control plane as they are now. */
export function install(host: RecordingHost, mesh: Linkerd): void {
  const { namespace, trustDomain, clusterDomain } = mesh;
  const plane = { namespace, trustDomain, clusterDomain, bundle: mesh.bundle() };
  for (const { metadata, data } of controlPlaneObjects(plane)) {
    host.setConfigMap({ name: metadata.name, namespace }, data as Record<string, string>);
  }
}

export function setRoots(host: RecordingHost, mesh: Linkerd, pem = formatCertificates(mesh.bundle())): void {
  host.setConfigMap({ name: 'linkerd-identity-trust-roots', namespace: mesh.namespace }, { 'ca-bundle.crt': pem });
}
