import type { JsonFields, Stored } from './objects/object.ts';

const string = { type: 'string' };
const boolean = { type: 'boolean' };
const integer = { type: 'integer' };
const strings = { type: 'array', items: string };
const anything = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
const tlsVersion = { type: 'string', enum: ['v1.0', 'v1.1', 'v1.2', 'v1.3'] };
const ambassador_id = strings;

/** Only the fields that matter to the gateway's upstream side are specified; the rest is accepted unchanged. */
const open = (properties: JsonFields): JsonFields => ({ ...anything, properties });
const closed = (properties: JsonFields): JsonFields => ({ type: 'object', properties });

const SPECS: readonly {
  kind: string;
  plural: string;
  spec: JsonFields;
  status?: boolean;
  columns?: readonly [string, string][];
}[] = [
  {
    kind: 'TLSContext',
    plural: 'tlscontexts',
    spec: closed({
      ambassador_id,
      hosts: strings,
      secret: string,
      ca_secret: string,
      crl_secret: string,
      cert_chain_file: string,
      private_key_file: string,
      cacert_chain_file: string,
      alpn_protocols: string,
      cert_required: boolean,
      min_tls_version: tlsVersion,
      max_tls_version: tlsVersion,
      cipher_suites: strings,
      ecdh_curves: strings,
      secret_namespacing: boolean,
      redirect_cleartext_from: integer,
      sni: string,
    }),
  },
  {
    kind: 'Mapping',
    plural: 'mappings',
    status: true,
    columns: [
      ['Source Host', '.spec.host'],
      ['Source Prefix', '.spec.prefix'],
      ['Dest Service', '.spec.service'],
    ],
    spec: {
      ...open({ ambassador_id, prefix: string, service: string, hostname: string, tls: string }),
      required: ['prefix', 'service'],
    },
  },
  {
    kind: 'TCPMapping',
    plural: 'tcpmappings',
    spec: { ...open({ ambassador_id, port: integer, service: string, tls: string }), required: ['port', 'service'] },
  },
  { kind: 'Module', plural: 'modules', spec: open({ ambassador_id, config: anything }) },
  { kind: 'Host', plural: 'hosts', status: true, spec: open({ ambassador_id, hostname: string }) },
  {
    kind: 'ConsulResolver',
    plural: 'consulresolvers',
    spec: { ...closed({ ambassador_id, address: string, datacenter: string }), required: ['address', 'datacenter'] },
  },
];

/** The gateway's custom resources as CustomResourceDefinitions. */
export function ambassadorDefinitions(): Stored[] {
  return SPECS.map(({ kind, plural, spec, status, columns }) => {
    const singular = kind.toLowerCase();
    return {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: `${plural}.getambassador.io` },
      spec: {
        group: 'getambassador.io',
        scope: 'Namespaced',
        names: { kind, plural, singular, listKind: `${kind}List`, categories: ['ambassador-crds'] },
        versions: [
          {
            name: 'v3alpha1',
            served: true,
            storage: true,
            schema: {
              openAPIV3Schema: { type: 'object', properties: { spec, ...(status ? { status: anything } : {}) } },
            },
            ...(status ? { subresources: { status: {} } } : {}),
            ...(columns
              ? { additionalPrinterColumns: columns.map(([name, jsonPath]) => ({ name, type: 'string', jsonPath })) }
              : {}),
          },
        ],
      },
    };
  });
}
