import { createHmac, randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { Destination, Need } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { atMost, cel, hostPort, httpOrSocket, isLoopback, LONGEST, MOST } from '../../src/mesh/schema.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { formatSpiffeId, parseSpiffeId } from '../../src/pki/names.ts';

/** Where Kubernetes puts the pod's own token. */
const POD_TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token';

const name = z
  .string()
  .max(LONGEST.name)
  .regex(/^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$/, 'expected letters, digits, "-", "_" or "."');
const lowerName = z
  .string()
  .max(LONGEST.name)
  .regex(/^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$/, 'expected lower-case letters, digits, "-" or "_"');

const ca = z
  .strictObject({
    file: z
      .string()
      .min(1)
      .max(LONGEST.path)
      .optional()
      .describe('Path of a PEM file; a change is picked up at the next connection.'),
    inline: z.string().min(1).max(LONGEST.pem).optional().describe('PEM text.'),
    configMap: z
      .strictObject({
        name: z.string().min(1).max(LONGEST.name),
        namespace: z.string().min(1).max(LONGEST.label).optional().describe("Default: the MeshCertificate's own."),
        key: z.string().min(1).max(LONGEST.name).default('ca.crt'),
      })
      .optional()
      .describe('One key of a ConfigMap.'),
  })
  .superRefine(exactlyOne('file', 'inline', 'configMap'))
  .meta(exactlyOneRule('file', 'inline', 'configMap'))
  .describe("The CA of Consul's own API certificates (not the Connect CA). Default: the public CAs.");

const tls = z.strictObject({
  ca: ca.optional(),
  serverName: z
    .string()
    .min(1)
    .max(LONGEST.name)
    .optional()
    .describe('Name to verify instead of the host of the address, such as server.dc1.consul when dialling an IP.'),
});

const http = z
  .strictObject({
    address: httpOrSocket().describe('An agent or a server, such as https://consul-server.consul.svc:8501.'),
    tls: tls.optional(),
  })
  .superRefine((value, context) => {
    if (value.tls && !value.address.startsWith('https:')) {
      context.addIssue({ code: 'custom', path: ['tls'], message: 'needs an https:// address' });
    }
  })
  .describe('The HTTP API of an agent, which creates the key and decides when to renew.');

const grpc = z
  .strictObject({
    addresses: z
      .array(hostPort('consul-server.consul.svc:8502'))
      .min(1)
      .max(16)
      .describe('Servers, tried in turn, such as consul-server.consul.svc:8502.'),
    tls: tls.optional(),
    plaintext: z
      .boolean()
      .default(false)
      .describe('Connect without TLS. ACL tokens are then sent in plaintext, and auth.login is refused.'),
  })
  .superRefine((value, context) => {
    if (value.tls && value.plaintext) {
      context.addIssue({ code: 'custom', path: ['plaintext'], message: 'cannot be combined with tls' });
    }
  })
  .describe('The gRPC API of the servers, without an agent. meshcert creates the key.');

const login = z
  .strictObject({
    method: z
      .string()
      .min(1)
      .max(LONGEST.name)
      .describe('Auth method of type kubernetes or jwt, such as consul-k8s-auth-method.'),
    tokenFile: z
      .string()
      .min(1)
      .max(LONGEST.path)
      .optional()
      .describe(`Bearer token file, read at each login. Default: ${POD_TOKEN}.`),
    serviceAccount: z
      .string()
      .max(LONGEST.name)
      .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'expected the name of a ServiceAccount')
      .optional()
      .describe("Mint the bearer token for this ServiceAccount of the object's namespace instead of reading a file."),
    audience: z
      .string()
      .min(1)
      .max(LONGEST.audience)
      .default('consul')
      .describe(
        "Audience of a minted token. Type jwt: one of the method's BoundAudiences. Type kubernetes: the API server's own, which the agent must allow by --allow-audience.",
      ),
    meta: atMost(MOST.few, z.record(z.string().max(LONGEST.name), z.string().max(LONGEST.audience)))
      .default({})
      .describe('Shown in the description of the Consul token.'),
    namespace: z.string().min(1).max(LONGEST.name).optional().describe('Enterprise: namespace of the auth method.'),
    datacenter: lowerName
      .optional()
      .describe('Datacenter to log in to, such as the primary. Default: that of the server.'),
  })
  .superRefine((value, context) => {
    if (value.tokenFile && value.serviceAccount) {
      context.addIssue({ code: 'custom', path: ['serviceAccount'], message: 'cannot be combined with tokenFile' });
    }
  })
  .transform((value) => ({ ...value, tokenFile: value.serviceAccount ? undefined : (value.tokenFile ?? POD_TOKEN) }));

const auth = z
  .strictObject({
    tokenFile: z
      .string()
      .min(1)
      .max(LONGEST.path)
      .optional()
      .describe('File with a Consul ACL token. It is read at each use, so it may be replaced.'),
    token: z
      .string()
      .min(1)
      .max(LONGEST.token)
      .transform((text) => new HiddenText(text))
      .optional()
      .describe('The ACL token itself. Use it only in a file that nobody else can read.'),
    login: login
      .optional()
      .describe('Obtain a token by ACL login, and a new one before it expires or after it was deleted.'),
  })
  .superRefine(exactlyOne('tokenFile', 'token', 'login'))
  .meta(exactlyOneRule('tokenFile', 'token', 'login'));

const LOGIN_NEEDS_TLS =
  'login would send the token of a ServiceAccount in plaintext: use https:// or grpc.tls, a unix socket, or a loopback address';
/** The agent itself judges loopback addresses exactly. */
const LOGIN_RULE = [
  '!has(self.auth) || !has(self.auth.login)',
  "(has(self.http) && (!self.http.address.startsWith('http:') || self.http.address.matches('^http://(localhost|127[.]|\\\\[::1\\\\])')))",
  '(has(self.grpc) && (!has(self.grpc.plaintext) || !self.grpc.plaintext))',
  "(has(self.grpc) && self.grpc.addresses.all(one, one.matches('^(localhost|127[.]|\\\\[::1\\\\])')))",
].join(' || ');

export const configSchema = z
  .strictObject({
    service: name.default('ambassador').describe("Name of the gateway's service in the mesh. Intentions refer to it."),
    datacenter: lowerName
      .optional()
      .describe(
        "Datacenter of the servers. Required with grpc, because no call returns it. Default with http: the agent's own.",
      ),
    trustDomain: z
      .string()
      .max(LONGEST.name)
      .regex(/^[a-z0-9.-]+$/)
      .optional()
      .describe(
        'Accept only this trust domain. Default: the one that Consul names, also after the cluster is rebuilt.',
      ),
    namespace: name.optional().describe('Enterprise only. Default: "default".'),
    partition: name.optional().describe('Enterprise only. Default: "default".'),
    http: http.optional(),
    grpc: grpc.optional(),
    auth: auth.optional().describe("Default: the anonymous token, or the agent's default token."),
  })
  .superRefine(exactlyOne('http', 'grpc'))
  .superRefine((value, context) => {
    const destinations = destinationsOf(value);
    if (!value.auth?.login || destinations.every(({ secure }) => secure)) return;
    context.addIssue({ code: 'custom', path: ['auth', 'login'], message: LOGIN_NEEDS_TLS });
  })
  .meta({
    'x-kubernetes-validations': [
      ...exactlyOneRule('http', 'grpc')['x-kubernetes-validations'],
      ...cel(LOGIN_RULE, LOGIN_NEEDS_TLS)['x-kubernetes-validations'],
    ],
  })
  .superRefine((value, context) => {
    if (value.grpc && value.datacenter === undefined) {
      context.addIssue({ code: 'custom', path: ['datacenter'], message: 'is required with grpc' });
    }
  });

export type ConsulConfig = z.infer<typeof configSchema>;
export type HttpConfig = NonNullable<ConsulConfig['http']>;
export type GrpcConfig = NonNullable<ConsulConfig['grpc']>;
export type ConsulTls = z.infer<typeof tls>;
type AuthConfig = NonNullable<ConsulConfig['auth']>;
export type LoginConfig = NonNullable<AuthConfig['login']>;

/** Every address that this configuration dials. */
export function destinationsOf({ http, grpc }: Pick<ConsulConfig, 'http' | 'grpc'>): readonly Destination[] {
  return [
    ...(http ? [httpDestination(http.address)] : []),
    ...(grpc?.addresses ?? []).map((address) => ({ address, secure: !grpc?.plaintext || isLoopback(address) })),
  ];
}

function httpDestination(given: string): Destination {
  if (given.startsWith('unix://')) return { address: `unix:${given.slice('unix://'.length)}`, secure: true };
  const url = URL.canParse(given) ? new URL(given) : undefined;
  const isTls = url?.protocol === 'https:';
  const address = `${url?.hostname}:${url?.port || (isTls ? 443 : 80)}`;
  return { address, secure: isTls || isLoopback(address) };
}

/** Valid in this process only: a mark means nothing elsewhere. */
const MARKING_KEY = randomBytes(32);

/** A secret in a configuration that may be printed as a whole. */
class HiddenText {
  readonly #text: string;
  /** Differs if the texts do, for comparing configurations. */
  readonly mark: string;

  constructor(text: string) {
    this.#text = text;
    this.mark = createHmac('sha256', MARKING_KEY).update(text).digest('base64');
  }

  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return '[redacted]';
  }

  toJSON(): string {
    return '[redacted]';
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[redacted]';
  }
}

/** The same rule in CEL, which the API server checks custom resources with. */
function exactlyOneRule(...keys: readonly string[]) {
  const rule = `[${keys.map((key) => `has(self.${key})`).join(', ')}].filter(set, set).size() == 1`;
  return { 'x-kubernetes-validations': [{ rule, message: `exactly one of ${keys.join(', ')} must be set` }] };
}

function exactlyOne(...keys: readonly string[]) {
  return (value: Readonly<Record<string, unknown>>, context: z.RefinementCtx) => {
    const set = keys.filter((key) => value[key] !== undefined);
    if (set.length === 1) return;
    const found = set.length === 0 ? 'none is set' : `${set.join(' and ')} are set`;
    context.addIssue({ code: 'custom', message: `exactly one of ${keys.join(', ')} is needed, ${found}` });
  };
}

/** What Consul's adapter reads, mints and dials. */
export function consulNeeds(config: ConsulConfig, namespace: string): readonly Need[] {
  const { http, grpc, auth } = config;
  const needs: Need[] = destinationsOf(config).map(({ address }, at) => ({
    kind: 'address',
    address,
    field: http ? 'consul.http.address' : `consul.grpc.addresses[${at}]`,
  }));
  const { serviceAccount, audience = '' } = auth?.login ?? {};
  if (serviceAccount !== undefined) {
    const field = 'consul.auth.login.serviceAccount';
    needs.push({ kind: 'token', namespace, name: serviceAccount, audience, field });
  }
  for (const configMap of [http?.tls?.ca?.configMap, grpc?.tls?.ca?.configMap]) {
    if (!configMap) continue;
    needs.push({ kind: 'configMap', namespace: configMap.namespace ?? namespace, name: configMap.name });
  }
  return needs;
}

/** `[/ap/<partition>]/ns/<namespace>/dc/<datacenter>/svc/<service>`. */
function servicePath(config: ConsulConfig, datacenter: string): string {
  const { partition, namespace = 'default', service } = config;
  const prefix = partition === undefined || partition === 'default' ? '' : `/ap/${partition}`;
  return `${prefix}/ns/${namespace}/dc/${datacenter}/svc/${service}`;
}

/** The SPIFFE ID of the configured service in this trust domain; needs the datacenter. */
export function serviceId(config: ConsulConfig, trustDomain: string): string {
  return formatSpiffeId({ trustDomain, path: servicePath(config, config.datacenter ?? '') });
}

/**
 * Why this leaf is not the configured service in this trust domain, or undefined. Without a configured datacenter any
 * is accepted.
 */
export function wrongName(config: ConsulConfig, leaf: Certificate, trustDomain: string): string | undefined {
  const [uri = ''] = leaf.names.uris;
  const id = parseSpiffeId(uri);
  if (!id || leaf.names.uris.length > 1) return `the leaf has the URI names [${leaf.names.uris.join(', ')}]`;
  if (id.trustDomain !== trustDomain)
    return `the leaf is in trust domain ${id.trustDomain}, and Consul's is ${trustDomain}`;
  const datacenter = config.datacenter ?? /\/dc\/([^/]+)\/svc\//.exec(id.path)?.[1] ?? '';
  const wanted = servicePath(config, datacenter);
  return id.path === wanted
    ? undefined
    : `the leaf is for ${uri}, expected ${formatSpiffeId({ trustDomain, path: wanted })}`;
}

/** Throws when the configuration pins a trust domain other than Consul's. */
export function checkTrustDomain(config: ConsulConfig, trustDomain: string): void {
  if (config.trustDomain === undefined || config.trustDomain === trustDomain) return;
  throw new MeshError(
    'ERR_MESH_CONFIG',
    `Consul's trust domain is ${trustDomain}, but spec.consul.trustDomain is ${config.trustDomain}; change trustDomain, or remove it to follow the cluster`,
  );
}
