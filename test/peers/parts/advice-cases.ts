import type { Istiod } from '../servers/istiod.ts';

/** A MeshCertificate that fails, what its error says, and the advice as it is carried out. */
export interface AdviceCase {
  readonly code: string;
  /** The cause and the advice, as the error has them. */
  readonly says: RegExp;
  readonly spec: (istiod: Istiod) => object;
  /** Objects that are there before. */
  readonly given?: readonly string[];
  /** A merge patch of the MeshCertificate, and objects to apply. */
  readonly fix: { readonly spec?: (istiod: Istiod) => object; readonly apply?: string };
}

const caOf = (istiod: Istiod, changes: object = {}) => ({
  istio: {
    ca: {
      address: istiod.secureAddress,
      serverName: istiod.serverName,
      serviceAccount: 'emissary-ingress',
      ...changes,
    },
  },
});

/** By the name of the MeshCertificate, whose Secrets are called after it. */
export const ADVICE: Readonly<Record<string, AdviceCase>> = {
  unreachable: {
    code: 'ERR_MESH_UNREACHABLE',
    says: /ECONNREFUSED.*check address/,
    spec: (istiod) => caOf(istiod, { address: '127.0.0.1:1' }),
    fix: { spec: (istiod) => caOf(istiod) },
  },
  'wrong-name': {
    code: 'ERR_MESH_TLS',
    says: /compare root and serverName with its certificate/,
    spec: (istiod) => caOf(istiod, { serverName: 'other.example.com' }),
    fix: { spec: (istiod) => caOf(istiod) },
  },
  'no-account': {
    code: 'ERR_MESH_TOKEN',
    says: /ServiceAccount emissary\/later does not exist; create it/,
    spec: (istiod) => caOf(istiod, { serviceAccount: 'later' }),
    fix: { apply: 'apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: later, namespace: emissary}\n' },
  },
  'wrong-audience': {
    code: 'ERR_MESH_DENIED',
    says: /audience vault.*looks right; .* is vault among its TOKEN_AUDIENCES/,
    spec: (istiod) => caOf(istiod, { audience: 'vault' }),
    fix: { spec: (istiod) => caOf(istiod, { audience: 'istio-ca' }) },
  },
  'api-audience': {
    code: 'ERR_NOT_ALLOWED',
    says: /opens the Kubernetes API.*choose another audience/,
    spec: (istiod) => caOf(istiod, { audience: 'https://kubernetes.default.svc.cluster.local' }),
    fix: { spec: (istiod) => caOf(istiod, { audience: 'istio-ca' }) },
  },
  'long-life': {
    code: 'ERR_MESH_CONFIG',
    says: /lower ttl \(istiod's MAX_WORKLOAD_CERT_TTL\)/,
    spec: (istiod) => caOf(istiod, { ttl: '100h' }),
    fix: { spec: (istiod) => caOf(istiod, { ttl: '24h' }) },
  },
  'taken-name': {
    code: 'ERR_PLAN_FOREIGN',
    says: /Secret emissary\/taken was not created by meshcert.*choose another name in the MeshCertificate/,
    spec: (istiod) => ({ ...caOf(istiod), secretName: 'taken' }),
    given: ['apiVersion: v1\nkind: Secret\nmetadata: {name: taken, namespace: emissary}\ndata: {password: c2VjcmV0}\n'],
    fix: { spec: () => ({ secretName: 'free' }) },
  },
  'taken-context': {
    code: 'ERR_PLAN_FOREIGN',
    says: /TLSContext emissary\/by-hand was not created by meshcert/,
    spec: (istiod) => ({ ...caOf(istiod), tlsContext: { name: 'by-hand' } }),
    given: [
      'apiVersion: getambassador.io/v3alpha1\nkind: TLSContext\nmetadata: {name: by-hand, namespace: emissary}\nspec: {secret: x}\n',
    ],
    fix: { spec: () => ({ tlsContext: { name: 'by-agent' } }) },
  },
};

export interface MappingCase {
  readonly code: string;
  readonly says: RegExp;
  readonly namespace: string;
  readonly spec: object;
  /** kubectl's arguments that carry the advice out. */
  readonly fix: readonly string[];
}

const merge = (patch: object) => ['patch', '--type=merge', '-p', JSON.stringify(patch)];
const spec = { hostname: '*', prefix: '/web/', service: 'https://web.shop:80' };

/** By the name of the Mapping; all are selected by one MeshCertificate of the namespace emissary. */
export const MAPPING_ADVICE: Readonly<Record<string, MappingCase>> = {
  plain: {
    code: 'ERR_TARGET_NO_HTTPS',
    says: /write https:\/\/web\.shop:80/,
    namespace: 'emissary',
    spec: { ...spec, service: 'web.shop:80' },
    fix: merge({ spec: { service: 'https://web.shop:80' } }),
  },
  'other-tls': {
    code: 'ERR_TARGET_FOREIGN_TLS',
    says: /its spec\.tls names mine, set by another client; remove it, or set/,
    namespace: 'emissary',
    spec: { ...spec, tls: 'mine' },
    fix: merge({ spec: { tls: null } }),
  },
  'other-gateway': {
    code: 'ERR_TARGET_AMBASSADOR_ID',
    says: /give both the same ambassador_id/,
    namespace: 'emissary',
    spec: { ...spec, ambassador_id: ['other'] },
    fix: merge({ spec: { ambassador_id: null } }),
  },
  'no-consent': {
    code: 'ERR_TARGET_NO_CONSENT',
    says: /its owner can annotate it: meshcert\.dev\/allow-from=emissary/,
    namespace: 'shop',
    spec,
    fix: ['annotate', 'meshcert.dev/allow-from=emissary'],
  },
};
