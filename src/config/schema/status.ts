import { z } from 'zod';
import { CONDITION_TYPES, type PublicationStatus } from '../../core/status.ts';

const time = () => z.string().meta({ format: 'date-time' });

const condition = z.strictObject({
  type: z.string().describe(`One of ${CONDITION_TYPES.join(', ')}.`),
  status: z.enum(['True', 'False', 'Unknown']).describe('Whether it holds.'),
  reason: z.string().describe('Stable, in CamelCase; docs/runbook.md has an entry for each.'),
  message: z.string().describe('What is so, and the next step.'),
  observedGeneration: z.int().min(0).optional().describe('The metadata.generation that was judged.'),
  lastTransitionTime: time().describe('Since when the status is what it is.'),
});

const root = z.strictObject({
  fingerprint: z.string().describe('SHA-256, hex.'),
  subject: z.string(),
  notAfter: time(),
  state: z
    .enum(['named', 'retained'])
    .describe('"retained": the mesh names it no longer, but leaves may still need it.'),
  since: time().optional(),
});

/** `status` of a MeshCertificate: what `PublicationStatus` is, as a schema. */
export const statusSchema = z
  .strictObject({
    mesh: z.string().describe('Which mesh issues.'),
    id: z.string().optional().describe('SPIFFE ID or DNS name of the published leaf.'),
    fingerprint: z.string().optional().describe('SHA-256 of the published leaf, hex.'),
    notBefore: time().optional().describe('Since when the leaf is valid.'),
    notAfter: time().optional().describe('When the leaf expires.'),
    renewalTime: time().optional().describe('When the leaf is due for renewal.'),
    emergencyTime: time().optional().describe('From when on a newer leaf is published whatever else holds it back.'),
    issuer: z
      .strictObject({ subject: z.string(), fingerprint: z.string().describe('SHA-256, hex.'), notAfter: time() })
      .optional()
      .describe('The certificate above the leaf, root included, that ends first.'),
    roots: z.array(root).describe('The published trust bundle.'),
    held: z
      .strictObject({ fingerprint: z.string(), reason: z.string(), since: time().optional(), until: time() })
      .optional()
      .describe('A newer leaf that is held back until its root is known to the upstreams.'),
    mappings: z
      .array(
        z.strictObject({
          name: z.string(),
          namespace: z.string(),
          kind: z.string(),
          state: z.string().describe('"ok", or a stable code of what keeps it from speaking mTLS.'),
          context: z.string().optional(),
          message: z.string().optional(),
        }),
      )
      .describe('Mappings that refer to this certificate, or should.'),
    targets: z
      .array(z.strictObject({ id: z.string(), context: z.string() }))
      .describe('Upstream identities that have a TLSContext of their own.'),
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
        firstTime: time().optional().describe('Since when it fails like this.'),
        time: time().describe('When it was seen last; while it lasts, this is written every 2 minutes at most.'),
      })
      .optional()
      .describe('The newest failure since things last went well.'),
    nextAttemptTime: time().optional().describe('When the mesh is asked again, while it fails to issue.'),
    conditions: z
      .array(condition)
      .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] })
      .describe(
        'Ready, Published, Trusted, Referenced, Degraded, IssuerEnding, and Live where the gateway can be asked.',
      ),
  })
  .describe('What stands in the cluster, as the agent last saw it.') satisfies z.ZodType<Wide<PublicationStatus>>;

/** zod writes `?: T | undefined` where the model has `?: T`, and knows no condition types. */
type Wide<T> = T extends readonly (infer I)[]
  ? Wide<I>[]
  : T extends object
    ? { [K in keyof T]: K extends 'type' ? string : Wide<T[K]> | (undefined extends T[K] ? undefined : never) }
    : T;
