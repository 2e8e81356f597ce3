import { z } from 'zod';
import type { Adapter } from '../../mesh/adapter.ts';
import { hostPort } from '../../mesh/schema/address.ts';
import { LONGEST } from '../../mesh/schema/bounds.ts';
import { cel } from '../../mesh/schema/cel.ts';
import { durationSchema } from '../../mesh/schema/duration.ts';
import type { GatewayFields } from './gateway-fields.ts';
import { extraLabels, objectName, undottedName } from './names.ts';

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
