import { z } from 'zod';
import { CONDITION_TYPES, type PublicationStatus } from '../../core/status.ts';

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
