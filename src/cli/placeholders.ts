import type { MeshCertificate } from '../config/mesh-certificate.ts';
import type { KubeObject } from '../core/object.ts';
import { desiredObjects } from '../gateway/emissary.ts';
import { neededTargets } from '../gateway/targets.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { TargetRules } from '../mesh/targeting.ts';
import { SandboxCa } from '../sandbox/ca.ts';

/**
 * The objects of each MeshCertificate in their order of writing, made by the same function as the real ones from a
 * throw-away identity, of which nothing is left: each value of a Secret says what will stand there.
 */
export async function placeholders(
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
  signal: AbortSignal,
): Promise<KubeObject[]> {
  const ca = SandboxCa.root();
  const identity = ca.identity({ uris: ['spiffe://placeholder/x'] });
  const objects: KubeObject[] = [];
  for (const { metadata, spec } of certificates) {
    signal.throwIfAborted();
    const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
    if (!adapter) continue;
    const { name, namespace = 'default', uid } = metadata;
    const desired = desiredObjects({
      meta: { name, namespace, uid },
      spec,
      tls: adapter.tls,
      identity,
      bundle: [ca.root],
      since: new Map(),
      targets: targetsOf(spec),
    });
    objects.push(...desired.map(({ object }) => withoutData(object, spec.mesh.name)));
  }
  return objects;
}

/** In Linkerd, each target that the document lists has its context; those found from Mappings come at run time. */
function targetsOf({ mesh, tlsContext }: MeshCertificate['spec']) {
  const { targets, trustDomain = 'cluster.local', controlPlaneNamespace } = mesh.config as LinkerdTargets;
  if (mesh.name !== 'linkerd') return undefined;
  const rules: TargetRules = {
    discover: false,
    listed: (targets ?? []).map((target) => ({
      ...target,
      id: `${target.serviceAccount}.${target.namespace}.serviceaccount.identity.${controlPlaneNamespace}.${trustDomain}`,
    })),
    identify: () => ({ code: 'ERR_TARGET_UNSEEN', message: 'no workload is looked at here' }),
  };
  const world = { mappings: [], services: [], endpointSlices: [], pods: [], contexts: [] };
  const { name: contextName, sni, ambassadorIds } = tlsContext;
  return neededTargets({ contextName, sni, ambassadorIds, rules }, world);
}

interface LinkerdTargets {
  readonly targets?: readonly { serviceAccount: string; namespace: string; name?: string; contextName?: string }[];
  readonly trustDomain?: string;
  readonly controlPlaneNamespace?: string;
}

const MEANING: Readonly<Record<string, (mesh: string, trust: boolean) => string>> = {
  'tls.crt': (mesh, trust) => (trust ? `<the roots of ${mesh}>` : `<leaf and intermediates from ${mesh}>`),
  'tls.key': () => '<the private key, made by the agent>',
  'ca.crt': (mesh) => `<the roots of ${mesh}>`,
};

function withoutData(object: KubeObject, mesh: string): KubeObject {
  const { data, ...rest } = object;
  if (typeof data !== 'object' || data === null) return object;
  const trust = !('tls.key' in data);
  const shown = Object.fromEntries(Object.keys(data).map((key) => [key, MEANING[key]?.(mesh, trust) ?? '<data>']));
  return object.kind === 'Secret' ? { ...rest, stringData: shown } : { ...rest, data: shown };
}
