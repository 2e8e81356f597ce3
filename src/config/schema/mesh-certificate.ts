import { z } from 'zod';
import type { Problem } from '../../core/problem.ts';
import { CONDITION_TYPES, type PublicationStatus } from '../../core/status.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { atMost, cel, durationSchema, hostPort, LONGEST, MOST } from '../../mesh/schema.ts';
import { type KubeObject, MANAGED_BY_LABEL, type ObjectMeta, OWNER_LABEL } from '../../objects/objects.ts';

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const LABEL_VALUE = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;
const LABEL_KEY = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;

/** The longest value that Kubernetes accepts in a label. */
export const LONGEST_LABEL = 63;

/** Dots are refused: a gateway may read what follows the last one as a namespace. */
export const undottedName = () =>
  z.string().max(253).regex(LABEL, 'must be lower-case letters, digits and dashes, and without dots');

export const objectName = () =>
  z.string().max(253).regex(SUBDOMAIN, 'must be lower-case letters, digits, dashes and dots');

export const namespaceName = () =>
  z.string().max(LONGEST_LABEL).regex(LABEL, 'must be lower-case letters, digits and dashes');

export const labels = () =>
  atMost(
    MOST.labels,
    z.record(
      z.string().max(317).regex(LABEL_KEY, 'is not a valid label key'),
      z.string().max(LONGEST_LABEL).regex(LABEL_VALUE, 'is not a valid label value'),
    ),
  );

/** Labels that a user may add, except the two that name the owner of an object. */
const extraLabels = () =>
  labels()
    .refine((given) => !(OWNER_LABEL in given) && !(MANAGED_BY_LABEL in given), { error: OURS })
    .meta(cel(`!('${OWNER_LABEL}' in self) && !('${MANAGED_BY_LABEL}' in self)`, OURS));

const OURS = `${OWNER_LABEL} and ${MANAGED_BY_LABEL} are set by meshcert`;

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
interface MeshTraits {
  /** Its servers are distinguished by SNI, so that the pods behind a route must be read. */
  readonly sniPerTarget: boolean;
  /** The ServiceAccounts of the pods behind a route are read, to know who is expected to answer. */
  readonly readsAccounts?: boolean | undefined;
}

/** A configuration that selects nothing, and that finds what another one made. It is kept in the status, as JSON. */
interface LeftFields<C> {
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

const renewal = z
  .strictObject({
    at: z
      .number()
      .min(0.1)
      .max(0.85)
      .default(0.6)
      .describe("Fraction of the leaf's lifetime after which it is renewed."),
    jitter: z.number().min(0).max(0.2).default(0.06).describe('Width of the random part that is added to "at".'),
  })
  .refine((renewal) => renewal.at + renewal.jitter <= 0.9, {
    error: 'at + jitter must be at most 0.9: the last tenth of the lifetime is the emergency window',
    path: ['at'],
  })
  .meta(
    cel(
      '(has(self.at) ? self.at : 0.6) + (has(self.jitter) ? self.jitter : 0.06) <= 0.9',
      'at + jitter must be at most 0.9: the last tenth of the lifetime is the emergency window',
    ),
  )
  .describe('When a requested certificate is renewed.');

const trust = z
  .strictObject({
    retain: durationSchema({ min: '0s', max: '8760h' })
      .prefault('24h')
      .describe('How long a root stays trusted that the mesh no longer names. At least the lifetime of one leaf.'),
    crl: z
      .boolean()
      .default(false)
      .describe(
        'Whether the gateway checks upstreams by the certificate revocation lists (CRLs) of the mesh. They are published only while there is a current one for each CA.',
      ),
    hold: durationSchema({ min: '0s', max: '24h' })
      .prefault('10m')
      .describe('How long a leaf under a new root is held back, so that upstreams learn the root first.'),
    withdrawn: z
      .array(
        z
          .string()
          .max(95)
          .regex(/^([0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}$/),
      )
      .max(64)
      .default([])
      .describe(
        'SHA-256 fingerprints of roots that are no longer trusted, at once and whatever the mesh names, such as those of a compromised CA. The last root of a bundle stays.',
      ),
  })
  .describe('How trust roots are added and removed.');

const probe = z
  .strictObject({
    address: hostPort('web.shop:443').describe('host:port of the upstream.'),
    id: z.string().min(1).max(LONGEST.id).optional().describe('SPIFFE ID or DNS name that the upstream must present.'),
    sni: z.string().min(1).max(255).optional().describe('Server name to send.'),
    http: z
      .strictObject({
        path: z.string().max(LONGEST.path).startsWith('/').default('/').describe('Path of the GET request.'),
      })
      .optional()
      .describe('Also send an HTTP request. Without it, the probe checks only the TLS handshake.'),
  })
  .describe('A real upstream that must accept a new identity before it is published.');

const upstreams = z
  .strictObject({
    enabled: z.boolean().default(true).describe('Whether the agent checks the identity of these upstreams.'),
    interval: durationSchema({ min: '10s', max: '24h' })
      .prefault('5m')
      .describe('How often each upstream is checked, by one TLS handshake.'),
    serviceAccounts: z
      .boolean()
      .default(false)
      .describe(
        'Whether the agent reads the ServiceAccounts of the pods behind a Service, for a mesh that names workloads by them. It needs get on Services and list on Pods in the namespaces of the routes.',
      ),
    identities: z
      .array(
        z.strictObject({
          service: z
            .string()
            .min(1)
            .max(259)
            .describe('The Service as NAME.NAMESPACE, or another host; with a port, that port alone.'),
          ids: z
            .array(z.string().min(1).max(2048))
            .min(1)
            .max(16)
            .describe('SPIFFE IDs or DNS names, one of which the upstream must present.'),
        }),
      )
      .max(256)
      .default([])
      .describe('Expected identities. They have precedence over what the mesh says.'),
  })
  .describe('The upstreams of the routes that use the certificate: the agent checks who answers there.');

/** The names have no default here: it is this object's own name, so `normalise` fills it in. */
const common = (gateways: readonly GatewayFields[]) => ({
  secretName: secretName(gateways).optional().describe('Secret for certificate and key. Default: <name>-identity.'),
  caSecretName: secretName(gateways).optional().describe('Secret for the trust bundle. Default: <name>-ca.'),
  crlSecretName: secretName(gateways)
    .optional()
    .describe('Secret for the CRLs of the mesh, with trust.crl. Default: <name>-crl.'),
  configMapName: objectName().optional().describe('ConfigMap for the trust bundle, key ca.crt. Default: none.'),
  labels: extraLabels()
    .default({})
    .describe('Labels of every published object, for a gateway that reads only objects with certain labels.'),
  renewal: renewal.prefault({}),
  trust: trust.prefault({}),
  probe: probe.optional(),
  upstreams: upstreams.prefault({}),
  paused: z.boolean().default(false).describe('Change nothing, and continue to report the status.'),
  deletionPolicy: z
    .enum(['Retain', 'Delete'])
    .default('Retain')
    .describe(
      'What happens to the published objects when this one is deleted. Default: Retain, because without its Secret the gateway would use plaintext.',
    ),
});

export type CommonSpec = z.output<z.ZodObject<ReturnType<typeof common>>>;

const secretName = (gateways: readonly GatewayFields[]): z.ZodString =>
  gateways.reduce((name, gateway) => gateway.secretName?.(name) ?? name, undottedName());

/** `spec` as users write it: one optional field a mesh, holding that adapter's configuration, the fields of the gateways, and the common ones. */
export function specSchema(adapters: readonly Adapter[], gateways: readonly GatewayFields[]) {
  const meshes: Record<string, z.ZodType> = {};
  for (const adapter of adapters) meshes[adapter.mesh] = z.optional(asZod(adapter));
  const { secretName, caSecretName, crlSecretName, configMapName, ...rest } = common(gateways);
  const added = Object.assign({}, ...gateways.map(({ fields }) => fields)) as Record<string, z.ZodType>;
  return z.strictObject({ ...meshes, secretName, caSecretName, crlSecretName, configMapName, ...added, ...rest });
}

function asZod(adapter: Adapter): z.ZodType {
  if (adapter.config instanceof z.ZodType) return adapter.config;
  const anyObject = z.looseObject({}).meta({ 'x-kubernetes-preserve-unknown-fields': true });
  return anyObject
    .describe(`How ${adapter.title} issues; its adapter knows the fields.`)
    .transform((input, context) => {
      try {
        return adapter.config.parse(input);
      } catch (error) {
        for (const issue of issuesFrom(error)) context.addIssue(issue);
        return z.NEVER;
      }
    });
}

/** Field by field if the adapter brings its own copy of zod, as one from outside this repository does. */
function issuesFrom(
  error: unknown,
): { readonly code: 'custom'; readonly path: PropertyKey[]; readonly message: string }[] {
  const whole = { code: 'custom', path: [], message: error instanceof Error ? error.message : String(error) } as const;
  const { issues } = (typeof error === 'object' && error !== null ? error : {}) as { issues?: unknown };
  const found = (Array.isArray(issues) ? issues : []).flatMap((issue: { path?: unknown; message?: unknown } | null) => {
    if (typeof issue?.message !== 'string' || !Array.isArray(issue.path)) return [];
    const path = issue.path.filter((part) => typeof part === 'string' || typeof part === 'number');
    return { code: 'custom' as const, path, message: issue.message };
  });
  return found.length > 0 ? found : [{ ...whole, path: [] }];
}

/**
 * The agent writes less: a status beyond a bound would be refused as a whole. An object of 1.5 MiB, the most that etcd
 * stores, has fewer items.
 */
const MOST_ITEMS = 16_384;
const LONGEST_MESSAGE = 32_768;

const time = () => z.string().max(64).meta({ format: 'date-time' });
/** A name, a code, a reason or a fingerprint. */
const word = () => z.string().max(1024);
/** A SPIFFE ID, a DNS name or an address. */
const id = () => z.string().max(4096);
const sentence = () => z.string().max(LONGEST_MESSAGE);

const condition = z.strictObject({
  type: word().describe(`One of ${CONDITION_TYPES.join(', ')}.`),
  status: z.enum(['True', 'False', 'Unknown']).describe('True, False or Unknown.'),
  reason: word().describe('Stable, in CamelCase; docs/runbook.md has an entry for each.'),
  message: sentence().describe('The current state, and the next step.'),
  observedGeneration: z.int().min(0).optional().describe('The metadata.generation that this condition is about.'),
  lastTransitionTime: time().describe('When the status of this condition last changed.'),
});

const root = z.strictObject({
  fingerprint: word().describe('SHA-256, hex.'),
  subject: sentence(),
  notAfter: time(),
  state: z
    .enum(['named', 'retained'])
    .describe('"retained": the mesh no longer names it, but leaves may still need it.'),
  since: time().optional(),
});

/** `status` of a MeshCertificate: the schema of `PublicationStatus`. */
export const statusSchema = z
  .strictObject({
    observedGeneration: z
      .int()
      .min(-1)
      .optional()
      .describe('The metadata.generation that the conditions are about; -1 until an agent has written a status.'),
    mesh: word().describe('Which mesh issues the certificate.'),
    id: id().optional().describe('SPIFFE ID or DNS name of the published leaf.'),
    fingerprint: word().optional().describe('SHA-256 of the published leaf, hex.'),
    notBefore: time().optional().describe('Since when the leaf is valid.'),
    notAfter: time().optional().describe('When the leaf expires.'),
    renewalTime: time().optional().describe('When the leaf is due for renewal.'),
    emergencyTime: time()
      .optional()
      .describe('When the emergency window begins: from then on, nothing holds back a newer leaf.'),
    issuer: z
      .strictObject({ subject: sentence(), fingerprint: word().describe('SHA-256, hex.'), notAfter: time() })
      .optional()
      .describe('The certificate above the leaf, root included, that ends first.'),
    secrets: z
      .array(z.strictObject({ name: word(), uid: word() }))
      .max(MOST_ITEMS)
      .optional()
      .describe('The Secrets that the agent wrote. A Secret with another uid is not relied on.'),
    roots: z.array(root).max(MOST_ITEMS).describe('The published trust bundle.'),
    held: z
      .strictObject({ fingerprint: word(), reason: sentence(), since: time().optional(), until: time() })
      .optional()
      .describe('A newer leaf that is held back until its root is known to the upstreams.'),
    gateways: z
      .record(word(), z.looseObject({}).meta({ 'x-kubernetes-preserve-unknown-fields': true }))
      .meta({ maxProperties: 64 })
      .optional()
      .describe(
        'Where the objects of each gateway are, so that they are retired when its fields are removed from the spec.',
      ),
    mappings: z
      .array(
        z.strictObject({
          name: word(),
          namespace: word(),
          kind: word(),
          state: word().describe('"ok", or a stable code of what prevents mTLS.'),
          context: word().optional(),
          message: sentence().optional(),
        }),
      )
      .max(MOST_ITEMS)
      .describe('Mappings that refer to this certificate, or are selected to.'),
    targets: z
      .array(z.strictObject({ id: id(), context: word() }))
      .max(MOST_ITEMS)
      .describe('Upstream identities that have a TLSContext of their own.'),
    upstreams: z
      .array(
        z.strictObject({
          address: id(),
          state: word().describe('"ok": it presents the expected identity; otherwise a stable code.'),
          id: id().optional().describe('The identity that it presented last.'),
          message: sentence().optional().describe('Why it is not "ok", and the next step.'),
        }),
      )
      .max(MOST_ITEMS)
      .optional()
      .describe('Who answered at the upstreams of the routes that use the certificate.'),
    rotations: z.int().min(0).describe('How often one leaf replaced another.'),
    lastRotationTime: time().optional(),
    renewRequest: id().optional().describe('The value of the annotation meshcert.dev/renew that was acted on last.'),
    lastError: z
      .strictObject({
        code: word().describe('Stable; docs/errors.md has an entry for each.'),
        message: sentence(),
        firstTime: time().optional().describe('When this failure began.'),
        time: time().describe('When it last occurred. While it lasts, this is updated at most every 2 minutes.'),
      })
      .optional()
      .describe('The last failure since the last success.'),
    nextAttemptTime: time().optional().describe('While the mesh does not issue: the time of the next attempt.'),
    conditions: z
      .array(condition)
      .max(64)
      .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] })
      .describe(
        'Ready, Published, Trusted, Referenced, Degraded, IssuerEnding, UpstreamVerified once an upstream was checked, and Live where the agent can query the gateway. Reconciling while a spec is not published yet, Stalled while it is refused.',
      ),
  })
  .describe('What is published, as the agent last observed it.') satisfies z.ZodType<Wide<PublicationStatus>>;

/** zod writes `?: T | undefined` for the model's `?: T`, and does not know the condition types. */
type Wide<T> = T extends readonly (infer I)[]
  ? Wide<I>[]
  : T extends object
    ? { [K in keyof T]: K extends 'type' ? string : Wide<T[K]> | (undefined extends T[K] ? undefined : never) }
    : T;

export const API_VERSION = 'meshcert.dev/v1alpha1';
export const KIND = 'MeshCertificate';

/** The user's spec, with every default filled in and every duration in milliseconds. */
export interface MeshCertificate extends KubeObject {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: typeof KIND;
  readonly metadata: ObjectMeta;
  readonly spec: MeshCertificateSpec;
  readonly status?: unknown;
  /** Why the newest version of the resource is refused; this is the last valid one. */
  readonly refused?: Problem & { readonly generation: number | undefined };
}

/** The fields of `spec` as the schema returns them, with the names filled in and the durations in milliseconds. */
export interface MeshCertificateSpec extends CommonFields {
  /** The configured mesh, and its adapter's parsed configuration. */
  readonly mesh: { readonly name: string; readonly config: unknown };
  readonly secretName: string;
  readonly caSecretName: string;
  /** Secret for the CRLs of the mesh; absent: they are not published. */
  readonly crlSecretName?: string | undefined;
  /** The result of each gateway's `configure`, by kind; a kind that is absent is not used. */
  readonly gateways: Readonly<Record<string, unknown>>;
  readonly trust: {
    readonly retainMs: number;
    readonly holdMs: number;
    /** SHA-256 fingerprints, lower-case hex. */
    readonly withdrawn: readonly string[];
  };
  /** Absent: nobody checks who answers behind the routes. */
  readonly upstreams?: UpstreamsSpec | undefined;
}

type CommonFields = Readonly<
  Pick<CommonSpec, 'configMapName' | 'labels' | 'renewal' | 'probe' | 'paused' | 'deletionPolicy'>
>;

/** How the agent checks who answers behind the routes that use the certificate. */
export interface UpstreamsSpec {
  readonly intervalMs: number;
  /** Whether ServiceAccounts are read, from which the mesh derives identities. */
  readonly serviceAccounts: boolean;
  readonly identities: readonly { readonly service: string; readonly ids: readonly string[] }[];
}

/** A real upstream that must accept a new identity before it is published. */
export type ProbeSpec = NonNullable<CommonSpec['probe']>;
