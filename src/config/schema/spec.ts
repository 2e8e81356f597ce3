import { z } from 'zod';
import type { Adapter } from '../../mesh/adapter.ts';
import { hostPort } from '../../mesh/schema/address.ts';
import { cel } from '../../mesh/schema/cel.ts';
import { durationSchema } from '../../mesh/schema/duration.ts';
import { extraLabels, labels, namespaceName, objectName, undottedName } from './names.ts';

const tlsVersion = () => z.enum(['v1.2', 'v1.3']);

const RESERVED_NAME = 'must not be "istio-certs": Emissary creates a Secret of that name from the files of a sidecar';

const secretName = () =>
  undottedName()
    .refine((name) => name !== 'istio-certs', { error: RESERVED_NAME })
    .meta(cel("self != 'istio-certs'", RESERVED_NAME));

const tlsContext = z
  .strictObject({
    enabled: z.boolean().default(true).describe('Whether to write a TLSContext.'),
    name: undottedName()
      .optional()
      .describe("Name of the TLSContext. Unique across all namespaces. Default: this object's name."),
    ambassadorIds: z
      .array(z.string().min(1))
      .default([])
      .describe('The ambassador_id of the TLSContext. Empty: the gateway whose AMBASSADOR_ID is "default".'),
    sni: z.string().min(1).max(255).optional().describe('Server name sent to the upstream. Default: none.'),
    alpnProtocols: z
      .string()
      .min(1)
      .optional()
      .describe('Comma-separated ALPN protocols. Default: what the mesh needs.'),
    minTlsVersion: tlsVersion().optional().describe('Lowest TLS version. Default: what the mesh needs.'),
    maxTlsVersion: tlsVersion().optional().describe('Highest TLS version. Default: what the mesh needs.'),
  })
  .refine((tls) => !(tls.minTlsVersion === 'v1.3' && tls.maxTlsVersion === 'v1.2'), {
    error: 'must not be above maxTlsVersion',
    path: ['minTlsVersion'],
  })
  .meta(
    cel(
      "!(has(self.minTlsVersion) && has(self.maxTlsVersion) && self.minTlsVersion == 'v1.3' && self.maxTlsVersion == 'v1.2')",
      'minTlsVersion must not be above maxTlsVersion',
    ),
  )
  .describe('The TLSContext that Mappings refer to.');

const NO_LABEL = 'must name at least one label: an empty selector would select every Mapping';

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
  .refine((wish) => wish.at + wish.jitter <= 0.9, {
    error: 'at + jitter must be at most 0.9: the last tenth of the lifetime is the emergency window',
    path: ['at'],
  })
  .meta(
    cel(
      '!has(self.at) || !has(self.jitter) || self.at + self.jitter <= 0.9',
      'at + jitter must be at most 0.9: the last tenth of the lifetime is the emergency window',
    ),
  )
  .describe('When a requested certificate is renewed.');

const trust = z
  .strictObject({
    retain: durationSchema({ min: '0s', max: '8760h' })
      .prefault('24h')
      .describe('How long a root stays trusted that the mesh no longer names. At least the lifetime of one leaf.'),
    hold: durationSchema({ min: '0s', max: '24h' })
      .prefault('10m')
      .describe('How long a leaf under a new root is held back, so that upstreams learn the root first.'),
  })
  .describe('How trust roots are added and removed.');

const probe = z
  .strictObject({
    address: hostPort('web.shop:443').describe('host:port of the upstream.'),
    id: z.string().min(1).optional().describe('SPIFFE ID or DNS name that the upstream must present.'),
    sni: z.string().min(1).max(255).optional().describe('Server name to send.'),
    http: z
      .strictObject({ path: z.string().startsWith('/').default('/').describe('Path of the GET request.') })
      .optional()
      .describe('Also send an HTTP request. Without it, the probe checks only the TLS handshake.'),
  })
  .describe('A real upstream that must accept a new identity before it is published.');

/** The names have no default here: it is this object's own name, so `normalise` fills it in. */
const common = {
  secretName: secretName().optional().describe('Secret for certificate and key. Default: <name>-identity.'),
  caSecretName: secretName().optional().describe('Secret for the trust bundle. Default: <name>-ca.'),
  configMapName: objectName().optional().describe('ConfigMap for the trust bundle, key ca.crt. Default: none.'),
  tlsContext: tlsContext.prefault({}),
  labels: extraLabels()
    .default({})
    .describe('Labels of every published object, for a gateway with AMBASSADOR_LABEL_SELECTOR.'),
  mappings: z
    .strictObject({
      selector: z
        .strictObject({
          matchLabels: labels()
            .refine((given) => Object.keys(given).length > 0, { error: NO_LABEL })
            .meta(cel('self.size() > 0', NO_LABEL))
            .describe('Labels, all of which a Mapping must have.'),
        })
        .describe('Which Mappings.'),
      namespaces: z
        .array(z.union([z.literal('*'), namespaceName()]))
        .min(1)
        .optional()
        .describe(
          'Where Mappings are looked for; ["*"] for everywhere. Default: in this object\'s namespace. Mappings of other namespaces must let this one in by the annotation meshcert.dev/allow-from.',
        ),
    })
    .optional()
    .describe(
      'Mappings whose spec.tls the agent sets to the TLSContext. Default: the agent reports Mappings and does not change them.',
    ),
  renewal: renewal.prefault({}),
  trust: trust.prefault({}),
  probe: probe.optional(),
  paused: z.boolean().default(false).describe('Change nothing, and continue to report the status.'),
  deletionPolicy: z
    .enum(['Retain', 'Delete'])
    .default('Retain')
    .describe(
      'What happens to the published objects when this one is deleted. Default: Retain, because without its Secret the gateway would use plaintext.',
    ),
};

export type CommonSpec = z.output<z.ZodObject<typeof common>>;

/** `spec` as users write it: one optional field a mesh, holding that adapter's configuration, and the common ones. */
export function specSchema(adapters: readonly Adapter[]) {
  const meshes: Record<string, z.ZodType> = {};
  for (const adapter of adapters) meshes[adapter.mesh] = z.optional(asZod(adapter));
  return z.strictObject({ ...meshes, ...common });
}

function asZod(adapter: Adapter): z.ZodType {
  if (adapter.config instanceof z.ZodType) return adapter.config;
  return z.unknown().transform((input, context) => {
    try {
      return adapter.config.parse(input);
    } catch (error) {
      context.addIssue(error instanceof Error ? error.message : String(error));
      return z.NEVER;
    }
  });
}
