import { z } from 'zod';
import {
  type Claim,
  type GatewayFields,
  labels,
  type NamespacedRule,
  namespaceName,
  undottedName,
} from '../../config/schema/mesh-certificate.ts';
import { cel, LONGEST, MOST } from '../../mesh/schema.ts';
import type { Resource } from '../../objects/objects.ts';

const tlsVersion = () => z.enum(['v1.2', 'v1.3']);

const tlsContext = z
  .strictObject({
    enabled: z.boolean().default(true).describe('Whether to write a TLSContext.'),
    name: undottedName()
      .optional()
      .describe("Name of the TLSContext. Unique across all namespaces. Default: this object's name."),
    ambassadorIds: z
      .array(z.string().min(1).max(LONGEST.name))
      .max(MOST.few)
      .default([])
      .describe('The ambassador_id of the TLSContext. Empty: the gateway whose AMBASSADOR_ID is "default".'),
    sni: z.string().min(1).max(255).optional().describe('Server name sent to the upstream. Default: none.'),
    alpnProtocols: z
      .string()
      .min(1)
      .max(LONGEST.name)
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
  .describe(
    'The TLSContext that Mappings refer to. A MeshCertificate without fields of any other gateway has one even if this is absent.',
  );

const NO_LABEL = 'must name at least one label: an empty selector would select every Mapping';

const mappings = z
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
      .max(MOST.namespaces)
      .optional()
      .describe(
        'Where Mappings are looked for; ["*"] for everywhere. Default: in this object\'s namespace. Mappings of other namespaces must let this one in by the annotation meshcert.dev/allow-from.',
      ),
  })
  .optional()
  .describe(
    'Mappings whose spec.tls the agent sets to the TLSContext. Default: the agent reports Mappings and does not change them.',
  );

// Without a default: whether it is given decides if a MeshCertificate with fields of another gateway uses Emissary too.
const tlsContextField = tlsContext.optional();
const mappingsField = mappings.optional();

type TlsContext = z.output<typeof tlsContext>;

/** A MeshCertificate's configuration of Emissary, with every default filled in. */
export interface EmissaryConfig {
  /** `ambassadorIds`: empty means Emissary's own default, `["default"]`. */
  readonly tlsContext: TlsContext & { readonly name: string };
  /** The Mappings whose `spec.tls` we set; absent: Mappings are only reported. */
  readonly mappings?: z.output<typeof mappingsField>;
  /** The spec has none of these fields any more: where Mappings may use what is left. */
  readonly leftIn?: readonly string[] | undefined;
}

const leftFields = z.object({
  tlsContext: z.object({ enabled: z.literal(false), name: z.string(), ambassadorIds: z.array(z.string()) }),
  leftIn: z.array(z.string()),
});

const RESERVED_NAME = 'must not be "istio-certs": Emissary creates a Secret of that name from the files of a sidecar';
const READ = ['get', 'list', 'watch'] as const;
const GROUP = 'getambassador.io';

export const emissaryFields: GatewayFields<EmissaryConfig> = {
  kind: 'emissary',
  fields: { tlsContext: tlsContextField, mappings: mappingsField },
  byDefault: true,
  secretName: (name) =>
    name
      .refine((given) => given !== 'istio-certs', { error: RESERVED_NAME })
      .meta(cel("self != 'istio-certs'", RESERVED_NAME)),
  configure(name, given) {
    const context = (given.tlsContext as TlsContext | undefined) ?? tlsContext.parse({});
    return {
      tlsContext: { ...context, name: context.name ?? name },
      mappings: given.mappings as EmissaryConfig['mappings'],
    };
  },
  left: {
    of: ({ tlsContext: { name, ambassadorIds }, mappings, leftIn }, namespace) => ({
      tlsContext: { enabled: false, name, ambassadorIds },
      leftIn: leftIn ?? mappings?.namespaces ?? [namespace],
    }),
    read: (recorded) => leftFields.safeParse(recorded).data,
  },
  *claims({ tlsContext: { enabled, name, ambassadorIds } }): Generator<Claim> {
    if (!enabled) return;
    // Names of TLSContexts are global: Emissary resolves a Mapping's `tls` by name alone.
    const ids = ambassadorIds.length === 0 ? ['default'] : new Set(ambassadorIds);
    for (const id of ids) {
      yield { key: `tlscontext ${id} ${name}`, path: ['spec', 'tlsContext', 'name'], what: `TLSContext ${name}` };
    }
  },
  *rights(
    { tlsContext: { enabled }, mappings: selection },
    { metadata },
    { sniPerTarget, readsAccounts },
  ): Generator<NamespacedRule> {
    const { namespace = '' } = metadata;
    // The whole kind is read, even if none are written: their names are global, so collisions must be seen, and one
    // that names a Secret prevents its deletion. They contain no secrets. Those that no Mapping needs any more are
    // deleted, after a target or a name in the spec has changed.
    const writes = enabled ? ['create', 'patch', 'delete'] : ['delete'];
    yield { namespace, rule: { apiGroups: [GROUP], resources: ['tlscontexts'], verbs: [...READ, ...writes] } };
    const verbs = [...READ, ...(selection ? ['patch'] : [])];
    for (const place of selection?.namespaces ?? [namespace]) {
      yield { namespace: place, rule: { apiGroups: [GROUP], resources: ['mappings', 'tcpmappings'], verbs } };
      // The objects behind a Mapping then determine the server name it needs, or who is expected to answer.
      if (!sniPerTarget && !readsAccounts) continue;
      yield { namespace: place, rule: { apiGroups: [''], resources: ['services', 'pods'], verbs: READ } };
      yield {
        namespace: place,
        rule: { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: READ },
      };
    }
  },
};

/** Why Emissary would misread a Secret of this name, or undefined. */
export function secretNameProblem(name: string): string | undefined {
  if (name.includes('.')) {
    return `the Secret name ${name} has a dot: Emissary reads the part after the last dot as a namespace; remove the dot`;
  }
  if (name === 'istio-certs') {
    return 'the Secret name istio-certs is reserved: with AMBASSADOR_ISTIO_SECRET_DIR set, Emissary creates its own, which hides this one; choose another';
  }
  return undefined;
}

/** Why Emissary would misread a TLSContext of this name, or undefined. */
export function contextNameProblem(name: string): string | undefined {
  if (name.includes('.')) {
    return `the TLSContext name ${name} has a dot: a Mapping could not refer to it unambiguously; remove the dot`;
  }
  if (name.endsWith('-context')) {
    return `the TLSContext name ${name} ends in -context: Emissary would tie it to a Host named ${name.slice(0, -'-context'.length)}; choose another`;
  }
  return undefined;
}

const ambassador = (kind: string, plural: string): Resource => ({
  apiVersion: 'getambassador.io/v3alpha1',
  kind,
  plural,
  namespaced: true,
});

export const EMISSARY_RESOURCES = {
  tlsContexts: ambassador('TLSContext', 'tlscontexts'),
  mappings: ambassador('Mapping', 'mappings'),
  tcpMappings: ambassador('TCPMapping', 'tcpmappings'),
  modules: ambassador('Module', 'modules'),
  consulResolvers: ambassador('ConsulResolver', 'consulresolvers'),
  serviceResolvers: ambassador('KubernetesServiceResolver', 'kubernetesserviceresolvers'),
  endpointResolvers: ambassador('KubernetesEndpointResolver', 'kubernetesendpointresolvers'),
  hosts: ambassador('Host', 'hosts'),
} as const;

/** Owns the one field `spec.tls` that we set on Mappings. */
export const MAPPING_FIELD_MANAGER = 'meshcert-mappings';

/**
 * Emissary batches changes for a second; a Secret and a Mapping in one batch leave other clusters on the old
 * certificate until the next batch. Twice its default window keeps them in two.
 */
export const BATCH_GAP_MS = 2_000;
