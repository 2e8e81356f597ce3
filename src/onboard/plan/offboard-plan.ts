import { describe, type KubeObject, type ObjectRef, OWNER_LABEL, refOf } from '../../core/object.ts';
import { mappingSpec } from '../../gateway/emissary/reading/kinds.ts';
import { setsTls } from '../../gateway/emissary/routes/mapping.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import { fields, text } from '../../mesh/kube-object.ts';
import { meant } from './choice.ts';
import { type DiffLine, diffObjects } from './diff.ts';
import { ONBOARD_LABEL } from './document.ts';
import { OnboardError } from './error.ts';
import { BEFORE_ANNOTATION, movedBack } from './moved.ts';
import type { OnboardSnapshot } from './snapshot.ts';

/**
 * How a Mapping stops using the mesh: restored to its state before `onboard`, or by releasing the `tls` that the agent
 * set.
 */
export interface MappingRelease {
  readonly mapping: KubeObject;
  readonly how: 'back' | 'give';
  readonly diff: readonly DiffLine[];
}

/** One MeshCertificate to delete, or the leftovers of one that is already gone. */
export interface Leaving {
  readonly namespace: string;
  readonly name: string;
  readonly certificate: KubeObject | undefined;
  readonly releases: readonly MappingRelease[];
  /** Mappings whose reference to our context was set by somebody else, who alone can remove it. */
  readonly inUse: readonly KubeObject[];
  readonly contexts: readonly ObjectRef[];
  /** Only with `deletionPolicy: Delete`. */
  readonly secrets: readonly ObjectRef[];
}

export interface OffboardPlan {
  readonly leaving: readonly Leaving[];
  /** What `onboard` created for the agent, once no MeshCertificate is left there. */
  readonly grants: readonly ObjectRef[];
}

/** Which MeshCertificates are deleted, and in what order their dependents are released. Pure. */
export function planOffboarding(
  snapshot: OnboardSnapshot,
  namespace: string,
  names: readonly string[],
  grants: readonly KubeObject[],
): OffboardPlan {
  const certificates = snapshot.meshCertificates.filter(({ metadata }) => metadata.namespace === namespace);
  const known = new Set(certificates.map(({ metadata }) => metadata.name));
  for (const name of orphans(snapshot, namespace)) known.add(name);
  for (const name of names) {
    if (known.has(name)) continue;
    const message = `no MeshCertificate "${name}" in namespace ${namespace}${meant(name, [...known])}`;
    throw new OnboardError('ERR_ONBOARD_UNKNOWN_NAME', message);
  }
  const going = [...known].filter((name) => names.length === 0 || names.includes(name)).sort();
  const rest = [...known].filter((name) => !going.includes(name));
  return {
    leaving: going.map((name) => leavingOf(snapshot, namespace, name)),
    grants: rest.length > 0 ? [] : grants.filter(isOnboarded).map(refOf),
  };
}

function leavingOf(snapshot: OnboardSnapshot, namespace: string, name: string): Leaving {
  const certificate = snapshot.meshCertificates.find(
    ({ metadata }) => metadata.name === name && metadata.namespace === namespace,
  );
  const contexts = contextsOwned(snapshot.contexts, namespace, name);
  const using = mappingsUsing(snapshot.mappings, contexts);
  const releases = using.flatMap((mapping): MappingRelease[] => {
    const how = mapping.metadata.annotations?.[BEFORE_ANNOTATION] ? 'back' : setsTls(mapping) ? 'give' : undefined;
    if (!how) return [];
    const after = how === 'back' ? movedBack(mapping) : withoutTls(mapping);
    return [{ mapping, how, diff: diffRelease(mapping, after) }];
  });
  const released = new Set(releases.map(({ mapping }) => mapping));
  return {
    namespace,
    name,
    certificate,
    releases,
    inUse: using.filter((mapping) => !released.has(mapping)),
    contexts: contexts.map(refOf),
    secrets: certificate && fields(certificate.spec).deletionPolicy === 'Delete' ? secretsOf(certificate) : [],
  };
}

export const contextsOwned = (contexts: readonly KubeObject[], namespace: string, name: string): KubeObject[] =>
  contexts.filter(
    ({ metadata }) =>
      metadata.namespace === namespace && metadata.labels?.[OWNER_LABEL] === ownerLabel({ namespace, name }),
  );

/** Names of contexts are global, so Mappings of all namespaces count. */
export function mappingsUsing(mappings: readonly KubeObject[], contexts: readonly KubeObject[]): KubeObject[] {
  const names = new Set(contexts.map(({ metadata }) => metadata.name));
  return mappings.filter((mapping) => {
    const { tls } = mappingSpec(mapping);
    return typeof tls === 'string' && names.has(tls);
  });
}

/** Throws ERR_OFFBOARD_IN_USE if deleting a context would make its Mapping fall back to plaintext. */
export function refuseInUse(using: readonly KubeObject[]): void {
  if (using.length === 0) return;
  const list = using.map((mapping) => describe(refOf(mapping))).join(', ');
  throw new OnboardError(
    'ERR_OFFBOARD_IN_USE',
    `spec.tls of ${list} still names the TLSContext, and another client set it; without the TLSContext the gateway could use plaintext. Remove spec.tls there and run this again; until then, the certificate is renewed`,
  );
}

function secretsOf({ metadata, spec }: KubeObject): ObjectRef[] {
  const { namespace, name } = metadata;
  const { secretName, caSecretName, configMapName } = fields(spec);
  const ref = (kind: string, of: string) => ({ apiVersion: 'v1', kind, namespace, name: of });
  const configMap = text(configMapName);
  return [
    ref('Secret', text(secretName) ?? `${name}-identity`),
    ref('Secret', text(caSecretName) ?? `${name}-ca`),
    ...(configMap === undefined ? [] : [ref('ConfigMap', configMap)]),
  ];
}

/** Names of MeshCertificates that are gone and left contexts. */
function orphans({ contexts }: OnboardSnapshot, namespace: string): string[] {
  return contexts.flatMap(({ metadata }) => {
    const owner = metadata.labels?.[OWNER_LABEL];
    const own = metadata.namespace === namespace && owner?.startsWith(`${namespace}.`);
    return own && owner ? [owner.slice(namespace.length + 1)] : [];
  });
}

const isOnboarded = ({ metadata }: KubeObject): boolean => metadata.labels?.[ONBOARD_LABEL] !== undefined;

function withoutTls(mapping: KubeObject): KubeObject {
  const { tls: _, ...spec } = fields(mapping.spec);
  return { ...mapping, spec };
}

/** Both objects in full: the deletion is what matters here. */
function diffRelease(before: KubeObject, after: KubeObject): DiffLine[] {
  return diffObjects(before, after, 2, true);
}
