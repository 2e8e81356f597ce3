import type { Clock } from '../../async/clock.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { Adapter, Host } from '../../mesh/adapter.ts';
import { fields } from '../../mesh/kube-object.ts';
import { silentLog } from '../../mesh/log.ts';
import { isTargeting, type TargetRules } from '../../mesh/targeting.ts';
import type { OnboardSnapshot } from './snapshot.ts';

/**
 * How the mesh names the workloads behind routes, from the objects in the snapshot; undefined for a mesh that one
 * object of the gateway serves.
 */
export async function rulesFor(
  certificate: MeshCertificate,
  adapter: Adapter,
  snapshot: OnboardSnapshot,
  clock: Clock,
  signal: AbortSignal,
): Promise<TargetRules | undefined> {
  const opened = adapter.open(certificate.spec.mesh.config, hostOver(snapshot, certificate, clock));
  const once = new AbortController();
  try {
    if (!isTargeting(opened)) return undefined;
    for await (const rules of opened.targets(AbortSignal.any([signal, once.signal]))) return rules;
    return undefined;
  } finally {
    once.abort(new Error('known'));
    await opened[Symbol.asyncDispose]();
  }
}

/** An adapter that only reads ConfigMaps finds them here; discovery issues nothing. */
function hostOver(snapshot: OnboardSnapshot, { metadata }: MeshCertificate, clock: Clock): Host {
  const refuse = () => {
    throw new TypeError('nothing is asked of a mesh while its rules are read');
  };
  return {
    clock,
    log: silentLog,
    random: () => 0.5,
    namespace: metadata.namespace ?? 'default',
    token: async () => refuse(),
    clusterTrustBundle: refuse,
    file: refuse,
    files: refuse,
    report: () => {},
    async *configMap({ name, namespace }) {
      const found = snapshot.configMaps.find(
        (one) => one.metadata.name === name && one.metadata.namespace === namespace,
      );
      yield found && (fields(found.data) as Readonly<Record<string, string>>);
    },
  };
}
