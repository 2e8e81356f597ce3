import type { z } from 'zod';
import type { ObjectMeta } from '../../core/object.ts';

/** A rule of a Role, in one namespace, or in all of them with `*`. */
export interface NamespacedRule {
  readonly namespace: string;
  readonly rule: PolicyRule;
}

export interface PolicyRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

/** A name that two MeshCertificates must not both use. */
export interface Claim {
  /** Equal keys collide. */
  readonly key: string;
  /** Path of the field, starting at `spec`. */
  readonly path: readonly (string | number)[];
  /** `Secret web-ca`: how a message names it. */
  readonly what: string;
}

/** What a mesh requires of a gateway. */
export interface MeshTraits {
  /** Its servers are distinguished by SNI, so that the pods behind a route must be read. */
  readonly sniPerTarget: boolean;
  /** The ServiceAccounts of the pods behind a route are read, to know who is expected to answer. */
  readonly readsAccounts?: boolean | undefined;
}

/** A configuration that selects nothing, and that finds what another one made. It is kept in the status, as JSON. */
export interface LeftFields<C> {
  of(config: C, namespace: string): C;
  /** Undefined: not of its making. */
  read(recorded: unknown): C | undefined;
}

/** What a kind of gateway adds to the MeshCertificate, and the consequences. */
export interface GatewayFields<C = unknown> {
  /** The key of its configuration in `spec.gateways`. */
  readonly kind: string;
  /** The fields that it adds below `spec`, in the order of the reference. */
  readonly fields: Readonly<Record<string, z.ZodType>>;
  /** Also used by a MeshCertificate that has no field of any gateway. */
  readonly byDefault?: boolean | undefined;
  /** Restricts the names of a published Secret. */
  secretName?(name: z.ZodString): z.ZodString;
  /** Its fields with every default filled in. Called if one of them is given, or by default. */
  configure(name: string, given: Readonly<Record<string, unknown>>): C;
  /** Optional capability: it retires what it made for a MeshCertificate that has its fields no longer. */
  readonly left?: LeftFields<C> | undefined;
  /** The names that this MeshCertificate uses. */
  claims(config: C, metadata: ObjectMeta): Iterable<Claim>;
  /** The permissions that the agent needs for it, in addition to reading and writing the Secrets. */
  rights(config: C, certificate: { readonly metadata: ObjectMeta }, mesh: MeshTraits): Iterable<NamespacedRule>;
}
