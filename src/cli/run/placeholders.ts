import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, refOf } from '../../core/object.ts';
import { desiredObjects } from '../../gateway/emissary.ts';
import { judgeMappings, neededTargets, type Target, type TargetSpec } from '../../gateway/targets.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { isTargeting, type TargetRules } from '../../mesh/targeting.ts';
import { parseCertificates } from '../../pki/certificate.ts';
import { throwawayPair } from '../../pki/csr.ts';
import { PrivateKey } from '../../pki/key.ts';
import { offlineHost } from './offline.ts';

export interface Placeholders {
  readonly objects: readonly KubeObject[];
  /** Of Mappings that would be left alone, and of what could not be known: why, one line each. */
  readonly remarks: readonly string[];
}

/**
 * The objects of each MeshCertificate in their order of writing, made by the same function as the real ones from a
 * throw-away identity, of which nothing is left: each value of a Secret says what will stand there. Targets and
 * Mappings are judged from `given`, what stands in the cluster.
 */
export async function placeholders(
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
  given: readonly KubeObject[],
  signal: AbortSignal,
): Promise<Placeholders> {
  const { key, cert } = throwawayPair();
  const chain = parseCertificates(cert);
  const identity = { id: 'spiffe://placeholder/x', key: PrivateKey.fromPem(key), chain, roots: chain };
  const objects: KubeObject[] = [];
  const remarks: string[] = [];
  for (const certificate of certificates) {
    signal.throwIfAborted();
    const { metadata, spec } = certificate;
    const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
    if (!adapter) continue;
    const { name, namespace = 'default', uid } = metadata;
    const { targets, mappings } = await judge(certificate, adapter, given, remarks, signal);
    const desired = desiredObjects({
      meta: { name, namespace, uid },
      spec,
      tls: adapter.tls,
      identity,
      bundle: chain,
      since: new Map(),
      targets,
    });
    objects.push(...desired.map(({ object }) => withoutData(object, spec.mesh.name)), ...mappings);
  }
  return { objects, remarks };
}

async function judge(
  certificate: MeshCertificate,
  adapter: Adapter,
  given: readonly KubeObject[],
  remarks: string[],
  signal: AbortSignal,
): Promise<{ readonly targets: readonly Target[]; readonly mappings: readonly KubeObject[] }> {
  const { metadata, spec } = certificate;
  const { namespace = 'default' } = metadata;
  const remark = (text: string) => remarks.push(`${describe(refOf(certificate))}: ${text}`);
  const rules = await rulesOf(adapter, spec.mesh.config, namespace, given, remark, signal);
  const { name: contextName, sni, ambassadorIds } = spec.tlsContext;
  const wish: TargetSpec = {
    namespace,
    contextName,
    sni,
    ambassadorIds,
    selector: spec.mappings?.selector.matchLabels,
    rules,
  };
  const of = (...kinds: string[]) => given.filter(({ kind }) => kinds.includes(kind));
  const scope = spec.mappings?.namespaces ?? [namespace];
  const world = {
    mappings: of('Mapping', 'TCPMapping').filter(
      (mapping) => scope.includes('*') || scope.includes(mapping.metadata.namespace ?? ''),
    ),
    services: of('Service'),
    endpointSlices: of('EndpointSlice'),
    pods: of('Pod'),
    contexts: [],
  };
  const verdicts = judgeMappings(wish, world);
  const mappings = verdicts.flatMap(({ mapping, selected, outcome }): KubeObject[] => {
    if ('code' in outcome) remark(`${outcome.code}: ${outcome.message}`);
    if ('code' in outcome || !selected) return [];
    const { apiVersion, kind } = mapping;
    const { name } = mapping.metadata;
    const metadataOf = { name, namespace: mapping.metadata.namespace ?? namespace };
    return [{ apiVersion, kind, metadata: metadataOf, spec: { tls: outcome.target.contextName } }];
  });
  return { targets: neededTargets(wish, world, verdicts), mappings };
}

/** What the mesh's own adapter says of targets, as far as it can without a mesh. */
async function rulesOf(
  adapter: Adapter,
  config: unknown,
  namespace: string,
  given: readonly KubeObject[],
  remark: (text: string) => void,
  signal: AbortSignal,
): Promise<TargetRules | undefined> {
  const opened = adapter.open(
    config,
    offlineHost(adapter, namespace, given, (error) => remark(error.message)),
  );
  if (!isTargeting(opened)) return undefined;
  for await (const rules of opened.targets(signal)) return rules;
  return { discover: false, listed: [], identify: () => ({ code: 'ERR_TARGET_UNSEEN', message: 'not known here' }) };
}

const MEANING: Readonly<Record<string, (mesh: string, trust: boolean) => string>> = {
  'tls.crt': (mesh, trust) => (trust ? `<the roots of ${mesh}>` : `<leaf and intermediates from ${mesh}>`),
  'tls.key': () => '<the private key, created by the agent>',
  'ca.crt': (mesh) => `<the roots of ${mesh}>`,
};

function withoutData(object: KubeObject, mesh: string): KubeObject {
  const { data, ...rest } = object;
  if (typeof data !== 'object' || data === null) return object;
  const trust = !('tls.key' in data);
  const shown = Object.fromEntries(Object.keys(data).map((key) => [key, MEANING[key]?.(mesh, trust) ?? '<data>']));
  return object.kind === 'Secret' ? { ...rest, stringData: shown } : { ...rest, data: shown };
}
