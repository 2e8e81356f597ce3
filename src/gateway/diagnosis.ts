import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { KubeObject, ObjectRef, Resource } from '../core/object.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Hit, Severity } from '../mesh/object-check.ts';
import type { SecretUse } from './input.ts';

/** What is judged: objects of a cluster or of files. Kinds that no check knows are ignored. */
export interface ClusterSnapshot {
  readonly objects: readonly KubeObject[];
  /** Epoch ms. */
  readonly now: number;
  readonly adapters: readonly Adapter[];
  /** Kinds that were read wholly. A directory of routes says nothing about Secrets that are not in it. */
  readonly whole: ReadonlySet<string>;
  /** Where objects were read; absent: nowhere was left out. */
  readonly namespaces?: readonly string[] | undefined;
  /** What is wrong with a MeshCertificate in itself. */
  readonly validate?: ((object: KubeObject) => readonly string[]) | undefined;
  /** A valid MeshCertificate with its defaults, or undefined. */
  readonly parse?: ((object: KubeObject) => MeshCertificate | undefined) | undefined;
  /** Whether a MeshCertificate uses this kind of gateway; absent: each does. */
  readonly uses?: ((object: KubeObject, kind: string) => boolean) | undefined;
}

/** The objects of a snapshot, by kind and by name. */
export interface SnapshotObjects {
  all(kind: string): readonly KubeObject[];
  find(kind: string, ref: SecretUse): KubeObject | undefined;
  /** Whether an absent object of this kind is missing, rather than unknown. */
  known(kind: string): boolean;
}

export function objectsOf({ objects, whole }: ClusterSnapshot): SnapshotObjects {
  const byKind = new Map<string, KubeObject[]>();
  for (const object of objects) {
    const others = byKind.get(object.kind);
    if (others) others.push(object);
    else byKind.set(object.kind, [object]);
  }
  const all = (kind: string) => byKind.get(kind) ?? [];
  return {
    all,
    find: (kind, ref) =>
      all(kind).find(({ metadata }) => metadata.name === ref.name && (metadata.namespace ?? '') === ref.namespace),
    known: (kind) => whole.has(kind) || byKind.has(kind),
  };
}

/** One thing that hurts or will. */
export interface Finding extends Hit {
  readonly code: string;
  readonly severity: Severity;
}

/** A check as it is listed. Its code is stable and has a section in docs/checks.md. */
export interface CheckTitle {
  readonly code: string;
  readonly severity: Severity;
  /** A sentence that is true of what the check finds. */
  readonly title: string;
}

/** Checks by what they are about. */
export interface CheckArea {
  readonly prefix: string;
  readonly name: string;
}

/** What the user says of the gateway; it wins over what is found. */
export interface GatewaySettings {
  /** By which the gateway tells its objects from those of others. */
  readonly id?: string | undefined;
  readonly namespace?: string | undefined;
}

/** A kind that the API server must serve in this version. */
export interface ServedKind {
  readonly resource: Resource;
  readonly fix: string;
  /** Why its definition, which is served, may cause problems later. */
  experimental?(definition: KubeObject): { readonly message: string; readonly fix: string } | undefined;
}

/** What `doctor` looks for in objects of this gateway. Pure. */
export interface Diagnosis {
  /** The kinds that the checks read, beside those of Kubernetes. */
  readonly resources: readonly Resource[];
  readonly checks: readonly CheckTitle[];
  readonly areas: readonly CheckArea[];
  /** The Secrets and ConfigMaps that an object names, under every reading of the name. */
  objectsToRead(object: KubeObject): readonly ObjectRef[];
  /**
   * What is wrong, for each gateway among the objects; without one, for a gateway with its defaults. The checks of
   * the adapters are given what this gateway makes of the objects. In no order, and twice where two gateways agree.
   */
  diagnose(snapshot: ClusterSnapshot, settings: GatewaySettings): readonly Finding[];
  /** What the API server must serve. */
  readonly served: readonly ServedKind[];
}
