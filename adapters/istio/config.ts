import { z } from 'zod';
import type { Expectation } from '../../src/mesh/adapter.ts';
import type { Claims } from '../../src/mesh/input.ts';
import { cel, durationSchema, hostPort, LONGEST } from '../../src/mesh/schema.ts';
import { formatSpiffeId, parseSpiffeId } from '../../src/pki/names.ts';

const dnsName = () =>
  z
    .string()
    .max(253)
    .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'must be a DNS name in lower case');
const absolutePath = () => z.string().max(LONGEST.path).startsWith('/', 'must be an absolute path');
/** A socket address longer than this does not bind (sun_path, with its terminating zero). */
const LONGEST_SOCKET_PATH = 107;

/** The name by which istiod publishes its roots to the cluster. */
const TRUST_BUNDLE = 'istio.io:istiod-ca:root-cert';

const root = z
  .strictObject({
    configMap: z
      .strictObject({
        name: dnsName().default('istio-ca-root-cert'),
        key: z.string().min(1).max(253).default('root-cert.pem'),
        namespace: dnsName().optional().describe("Default: this object's namespace."),
      })
      .optional()
      .describe('What istiod and istio-csr write into every namespace.'),
    clusterTrustBundle: z
      .strictObject({
        name: z
          .string()
          .max(253)
          .regex(/^([a-z0-9]([-a-z0-9.]*[a-z0-9])?:)*[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'must be the name of an object')
          .default(TRUST_BUNDLE),
      })
      .optional()
      .describe('What istiod writes in place of the ConfigMap with ENABLE_CLUSTER_TRUST_BUNDLE_API.'),
    file: absolutePath()
      .optional()
      .describe('A PEM file, such as a mounted ConfigMap. Changes of the file are picked up.'),
    inline: z.string().min(1).max(LONGEST.pem).optional().describe('PEM.'),
  })
  .refine((given) => Object.values(given).filter((one) => one !== undefined).length <= 1, {
    error: 'at most one of configMap, clusterTrustBundle, file and inline may be set',
  })
  .prefault({})
  .describe('Roots that the CA itself is verified against. Default: ConfigMap istio-ca-root-cert.');

const ca = z
  .strictObject({
    address: hostPort('istiod.istio-system.svc:15012')
      .default('istiod.istio-system.svc:15012')
      .describe('host:port of istiod, of istio-csr, or of another server with the same API.'),
    serviceAccount: dnsName()
      .optional()
      .describe(
        "ServiceAccount of this object's namespace whose identity the gateway gets. The agent mints a token for it.",
      ),
    tokenFile: absolutePath()
      .optional()
      .describe(
        'Instead of serviceAccount: file of a projected token, for the identity of the pod that it belongs to. It is read at each use.',
      ),
    audience: z.string().min(1).max(LONGEST.audience).default('istio-ca').describe("One of istiod's TOKEN_AUDIENCES."),
    clusterId: z
      .string()
      .max(LONGEST.name)
      .regex(/^[ -~]*$/, 'expected printable ASCII')
      .default('Kubernetes')
      .describe("istiod's name of this cluster (meshConfig, multiCluster.clusterName)."),
    ttl: durationSchema({ min: '1m', max: '2160h' })
      .optional()
      .describe("Requested lifetime. Default: the CA's own, 24h for istiod. istio-csr caps it silently."),
    root,
    serverName: dnsName()
      .optional()
      .describe(
        'Name that the certificate of the CA must have. Default: the host of the address. Needed for an IP address or a .cluster.local name.',
      ),
    includeCaRoots: z
      .boolean()
      .default(true)
      .describe(
        'Also trust the roots of the ConfigMap or file for workloads. Turn off where a registration authority signs under other roots.',
      ),
  })
  .refine((config) => (config.serviceAccount === undefined) !== (config.tokenFile === undefined), {
    error: 'exactly one of serviceAccount and tokenFile must be set',
  })
  .meta(
    cel('has(self.serviceAccount) != has(self.tokenFile)', 'exactly one of serviceAccount and tokenFile must be set'),
  );

const sds = z.strictObject({
  socket: absolutePath()
    .max(LONGEST_SOCKET_PATH, `a socket path has at most ${LONGEST_SOCKET_PATH} characters`)
    .default('/var/run/secrets/workload-spiffe-uds/socket')
    .describe('Unix socket of pilot-agent, of the SPIRE agent, or of another SDS server.'),
  nodeId: z
    .string()
    .min(1)
    .max(LONGEST.id)
    .optional()
    .describe('node.id of requests. Default: the form that a sidecar of this namespace uses.'),
  certificateName: z
    .string()
    .min(1)
    .max(LONGEST.id)
    .default('default')
    .describe('Name of the certificate: "default", or for SPIRE also a SPIFFE ID.'),
  bundleName: z
    .string()
    .min(1)
    .max(LONGEST.id)
    .default('ROOTCA')
    .describe('Name of the roots: "ROOTCA", or for SPIRE also a trust domain ID.'),
  disableSpiffeValidation: z
    .boolean()
    .default(true)
    .describe('Request plain roots from SPIRE instead of its validator for Envoy. Both work.'),
  expectedRotation: durationSchema({ min: '1s' })
    .optional()
    .describe(
      'Subscribe again when no new leaf arrives for this long. Default: three quarters of the lifetime of the leaf.',
    ),
});

/** `spec.istio` of a MeshCertificate. */
export const istioConfig = z
  .strictObject({
    ca: ca.optional().describe('Request the identity of a ServiceAccount from a CA.'),
    sds: sds.optional().describe('Subscribe to a socket that serves certificates.'),
    trustDomain: dnsName().optional().describe('Trust domain. Default: cluster.local with ca; any with sds.'),
    id: z
      .string()
      .max(LONGEST.id)
      .refine((text) => parseSpiffeId(text) !== undefined, 'expected a SPIFFE ID, spiffe://<trust domain>/<path>')
      .optional()
      .describe('Exact SPIFFE ID. Default: that of the ServiceAccount with ca; the first that arrives with sds.'),
  })
  .refine((config) => (config.ca === undefined) !== (config.sds === undefined), {
    error: 'exactly one of ca and sds must be set',
  })
  .meta(cel('has(self.ca) != has(self.sds)', 'exactly one of ca and sds must be set'))
  .describe('Identity from Istio, or from another server of SDS or of its CA API.');

export type IstioConfig = z.output<typeof istioConfig>;
export type CaConfig = NonNullable<IstioConfig['ca']>;
export type SdsConfig = NonNullable<IstioConfig['sds']>;

const DEFAULT_TRUST_DOMAIN = 'cluster.local';

export const accountPath = (namespace: string, account: string): string => `/ns/${namespace}/sa/${account}`;

/** Istio's name of a ServiceAccount. */
const workloadId = (trustDomain: string, namespace: string, account: string): string =>
  formatSpiffeId({ trustDomain, path: accountPath(namespace, account) });

export function expectation(config: IstioConfig, namespace: string): Expectation {
  const trustDomain = trustDomainOf(config);
  const account = config.ca?.serviceAccount;
  const id = config.id ?? (account && trustDomain ? workloadId(trustDomain, namespace, account) : undefined);
  return { form: 'spiffe', ...(id === undefined ? {} : { id }), ...(trustDomain === undefined ? {} : { trustDomain }) };
}

/** The identity that the CA gives to the bearer of this token, or undefined when it is not a ServiceAccount's. */
export function bearerId(config: IstioConfig, claims: Claims | undefined): string | undefined {
  const account = claims?.account;
  const trustDomain = trustDomainOf(config);
  return account && trustDomain ? workloadId(trustDomain, account.namespace, account.name) : undefined;
}

function trustDomainOf(config: IstioConfig): string | undefined {
  const fromId = config.id === undefined ? undefined : parseSpiffeId(config.id)?.trustDomain;
  return config.trustDomain ?? fromId ?? (config.ca ? DEFAULT_TRUST_DOMAIN : undefined);
}
