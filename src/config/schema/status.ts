import { z } from 'zod';
import { CONDITION_TYPES, type PublicationStatus } from '../../core/status.ts';

const time = () => z.string().meta({ format: 'date-time' });

const condition = z.strictObject({
  type: z.string().describe(`One of ${CONDITION_TYPES.join(', ')}.`),
  status: z.enum(['True', 'False', 'Unknown']).describe('True, False or Unknown.'),
  reason: z.string().describe('Stable, in CamelCase; docs/runbook.md has an entry for each.'),
  message: z.string().describe('The current state, and the next step.'),
  observedGeneration: z.int().min(0).optional().describe('The metadata.generation that this condition is about.'),
  lastTransitionTime: time().describe('When the status of this condition last changed.'),
});

const root = z.strictObject({
  fingerprint: z.string().describe('SHA-256, hex.'),
  subject: z.string(),
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
    mesh: z.string().describe('Which mesh issues the certificate.'),
    id: z.string().optional().describe('SPIFFE ID or DNS name of the published leaf.'),
    fingerprint: z.string().optional().describe('SHA-256 of the published leaf, hex.'),
    notBefore: time().optional().describe('Since when the leaf is valid.'),
    notAfter: time().optional().describe('When the leaf expires.'),
    renewalTime: time().optional().describe('When the leaf is due for renewal.'),
    emergencyTime: time()
      .optional()
      .describe('When the emergency window begins: from then on, nothing holds back a newer leaf.'),
    issuer: z
      .strictObject({ subject: z.string(), fingerprint: z.string().describe('SHA-256, hex.'), notAfter: time() })
      .optional()
      .describe('The certificate above the leaf, root included, that ends first.'),
    secrets: z
      .array(z.strictObject({ name: z.string(), uid: z.string() }))
      .optional()
      .describe('The Secrets that the agent wrote. A Secret with another uid is not relied on.'),
    roots: z.array(root).describe('The published trust bundle.'),
    held: z
      .strictObject({ fingerprint: z.string(), reason: z.string(), since: time().optional(), until: time() })
      .optional()
      .describe('A newer leaf that is held back until its root is known to the upstreams.'),
    gateways: z
      .record(z.string(), z.looseObject({}).meta({ 'x-kubernetes-preserve-unknown-fields': true }))
      .optional()
      .describe(
        'Where the objects of each gateway are, so that they are retired when its fields are removed from the spec.',
      ),
    mappings: z
      .array(
        z.strictObject({
          name: z.string(),
          namespace: z.string(),
          kind: z.string(),
          state: z.string().describe('"ok", or a stable code of what prevents mTLS.'),
          context: z.string().optional(),
          message: z.string().optional(),
        }),
      )
      .describe('Mappings that refer to this certificate, or are selected to.'),
    targets: z
      .array(z.strictObject({ id: z.string(), context: z.string() }))
      .describe('Upstream identities that have a TLSContext of their own.'),
    upstreams: z
      .array(
        z.strictObject({
          address: z.string(),
          state: z.string().describe('"ok": it presents the expected identity; otherwise a stable code.'),
          id: z.string().optional().describe('The identity that it presented last.'),
          message: z.string().optional().describe('Why it is not "ok", and the next step.'),
        }),
      )
      .optional()
      .describe('Who answered at the upstreams of the routes that use the certificate.'),
    rotations: z.int().min(0).describe('How often one leaf replaced another.'),
    lastRotationTime: time().optional(),
    renewRequest: z
      .string()
      .optional()
      .describe('The value of the annotation meshcert.dev/renew that was acted on last.'),
    lastError: z
      .strictObject({
        code: z.string().describe('Stable; docs/errors.md has an entry for each.'),
        message: z.string(),
        firstTime: time().optional().describe('When this failure began.'),
        time: time().describe('When it last occurred. While it lasts, this is updated at most every 2 minutes.'),
      })
      .optional()
      .describe('The last failure since the last success.'),
    nextAttemptTime: time().optional().describe('While the mesh does not issue: the time of the next attempt.'),
    conditions: z
      .array(condition)
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
