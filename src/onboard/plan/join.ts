import type { Clock } from '../../async/clock.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { validator } from '../../config/validate.ts';
import type { KubeObject } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import { type Adapter, tlsDefaults } from '../../mesh/adapter.ts';
import type { Account, Installation } from '../../mesh/cluster.ts';
import type { GatewayFinding } from '../discover/gateway.ts';
import type { UpstreamFinding } from '../discover/upstream.ts';
import { accepted, documentFor, isOnboarded } from './document.ts';
import { type Joined, judge } from './moves.ts';
import { rulesFor } from './rules.ts';
import type { OnboardSnapshot } from './snapshot.ts';

interface Ground {
  readonly gateway: GatewayFinding;
  readonly upstreams: readonly UpstreamFinding[];
  readonly snapshot: OnboardSnapshot;
  readonly changes: readonly string[];
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly Gateway[];
  readonly clock: Clock;
}

/** The gateway's membership in one mesh: the MeshCertificate, as it exists or as it will be applied. */
export async function join(installation: Installation, ground: Ground, signal: AbortSignal): Promise<Joined> {
  const { gateway: found, upstreams, snapshot, changes, adapters, gateways, clock } = ground;
  const { gateway } = found;
  const { mesh } = installation;
  const adapter = adapters.find((one) => one.mesh === mesh);
  if (!adapter) throw new TypeError(`no adapter for mesh ${mesh}`);
  const meshes = adapters.map((one) => one.mesh);
  const validate = validator(adapters, gateways);
  const joined = (certificate: MeshCertificate, rules: Joined['rules'], document?: KubeObject): Joined => ({
    mesh,
    gateway,
    certificate,
    document,
    rules,
    view: { ...adapter, tls: tlsDefaults(adapter, certificate.spec.mesh.config) },
  });
  const existing = snapshot.meshCertificates.find((one) => isFor(one, mesh, found.installation.home));
  if (existing && !isOnboarded(existing)) {
    const certificate = accepted(existing, validate, 'the cluster has this value; correct it there');
    // One of the user's is extended by a gateway that it does not use yet, and otherwise used as it is.
    if (certificate.spec.gateways[gateway.kind] !== undefined) {
      return joined(certificate, await rulesFor(certificate, adapter, snapshot, clock, signal));
    }
  }
  const behind = upstreams.filter(({ membership }) => membership === mesh);
  const documentOf = (targets: readonly Account[]) =>
    documentFor({
      installation,
      adapter,
      meshes,
      gateway: found,
      gateways,
      routes: behind.map(({ route }) => route),
      targets,
      gatewayObjects: snapshot.gatewayObjects,
      changes,
      existing,
    });
  const draft = accepted(documentOf([]), validate);
  const rules = await rulesFor(draft, adapter, snapshot, clock, signal);
  if (!rules || gateway.onboarding.standIns) return joined(draft, rules, documentOf([]));
  // A listed target has its object before any route needs it, so that each route moves in one write.
  const alone = [joined(draft, rules, documentOf([]))];
  const possible = behind.filter((one) => judge(one, alone, snapshot).outcome.kind !== 'stay');
  const document = documentOf(distinct(possible.flatMap(({ accounts }) => accounts)));
  const certificate = accepted(document, validate);
  return joined(certificate, await rulesFor(certificate, adapter, snapshot, clock, signal), document);
}

const isFor = ({ metadata, spec }: KubeObject, mesh: string, namespace: string): boolean =>
  metadata.namespace === namespace && (spec as Record<string, unknown> | undefined)?.[mesh] !== undefined;

function distinct(accounts: readonly Account[]): Account[] {
  const byPlace = new Map(accounts.map((one) => [`${one.namespace}/${one.serviceAccount}`, one]));
  return [...byPlace.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one);
}
