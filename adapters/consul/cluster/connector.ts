type Env = Readonly<Record<string, string | undefined>>;

/** A setting of the old connector, or of Consul's own clients, that cannot be supported. */
export class ConsulConnectorError extends Error {
  override readonly name = 'ConsulConnectorError';
  readonly code = 'ERR_CONFIG_CONNECTOR';
}

/** The TLSContext name in Ambassador's manifest for the connector, whatever its ID. */
const TLS_CONTEXT = 'ambassador-consul';

const UNSUPPORTED: Readonly<Record<string, string>> = {
  CONSUL_HTTP_AUTH: 'HTTP basic authentication is not supported; use CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE',
  CONSUL_CLIENT_CERT:
    'client certificates are not supported; set verify_incoming = false for HTTPS in Consul, and use a token',
  CONSUL_CLIENT_KEY:
    'client certificates are not supported; set verify_incoming = false for HTTPS in Consul, and use a token',
  CONSUL_CAPATH: 'a directory of CAs is not supported; name one file in CONSUL_CACERT',
};

const ADDRESS = '_CONSUL_HOST, _CONSUL_PORT or CONSUL_HTTP_ADDR';
/** The variables that decide a field of the MeshCertificate, or the fields below it. */
const VARIABLES: Readonly<Record<string, string>> = {
  'metadata.namespace': '_AMBASSADOR_TLS_SECRET_NAMESPACE',
  'spec.secretName': '_AMBASSADOR_TLS_SECRET_NAME',
  'spec.consul.http.tls.ca': 'CONSUL_CACERT',
  'spec.consul.http.tls.serverName': 'CONSUL_TLS_SERVER_NAME',
  'spec.consul.http': ADDRESS,
  'spec.consul.auth.tokenFile': 'CONSUL_HTTP_TOKEN_FILE',
  'spec.consul.auth': 'CONSUL_HTTP_TOKEN',
  'spec.consul.namespace': 'CONSUL_NAMESPACE',
  'spec.consul.partition': 'CONSUL_PARTITION',
};
/** The names that are left come from this one. */
const ID = '_AMBASSADOR_ID';

/** The error for a MeshCertificate from these variables that the schema refuses. */
export function refusedVariables(issues: readonly { readonly path: string; readonly message: string }[]): Error {
  const variableOf = (path: string) =>
    Object.entries(VARIABLES).find(([field]) => path === field || path.startsWith(`${field}.`))?.[1] ?? ID;
  const problems = new Set(issues.map(({ path, message }) => `${variableOf(path)}: ${message} (${path})`));
  return new ConsulConnectorError([...problems].join('; '));
}

/**
 * The MeshCertificate, without `apiVersion` and `kind`, that does what Ambassador's Consul connector did under this
 * environment: the same service name, Secret and TLSContext, and the CA Secret that it never made. Variables:
 * `_CONSUL_HOST`, `_CONSUL_PORT`, `_AMBASSADOR_ID`, `_AMBASSADOR_TLS_SECRET_NAME`, `_AMBASSADOR_TLS_SECRET_NAMESPACE`,
 * and those of Consul's Go client, which the connector was built on. `namespace` is the pod's own.
 */
export function connectorDocument(env: Env, namespace: string): object {
  for (const [name, why] of Object.entries(UNSUPPORTED))
    if (env[name]) throw new ConsulConnectorError(`${name}: ${why}`);
  const id = env._AMBASSADOR_ID ?? '';
  const service = id === '' ? 'ambassador' : `ambassador-${id}`;
  const auth = authOf(env);
  return {
    metadata: { name: `${service}-consul`, namespace: env._AMBASSADOR_TLS_SECRET_NAMESPACE || namespace },
    spec: {
      consul: {
        service,
        http: httpOf(env),
        ...(auth ? { auth } : {}),
        ...(env.CONSUL_NAMESPACE ? { namespace: env.CONSUL_NAMESPACE } : {}),
        ...(env.CONSUL_PARTITION ? { partition: env.CONSUL_PARTITION } : {}),
      },
      secretName: env._AMBASSADOR_TLS_SECRET_NAME || `${service}-consul-connect`,
      caSecretName: `${service}-consul-ca`,
      tlsContext: { name: TLS_CONTEXT, ...(id === '' ? {} : { ambassadorIds: [id] }) },
    },
  };
}

function httpOf(env: Env): object {
  const address = addressOf(env);
  if (!address.startsWith('https:')) return { address };
  if (env.CONSUL_HTTP_SSL_VERIFY && !isTrue('CONSUL_HTTP_SSL_VERIFY', env.CONSUL_HTTP_SSL_VERIFY)) {
    throw new ConsulConnectorError('CONSUL_HTTP_SSL_VERIFY: Consul is always verified; name its CA in CONSUL_CACERT');
  }
  const serverName = env.CONSUL_TLS_SERVER_NAME;
  const tls = {
    ...(env.CONSUL_CACERT ? { ca: { file: env.CONSUL_CACERT } } : {}),
    ...(serverName ? { serverName } : {}),
  };
  return Object.keys(tls).length > 0 ? { address, tls } : { address };
}

/** The connector's own two variables override CONSUL_HTTP_ADDR, as they did there. */
function addressOf(env: Env): string {
  const ssl = env.CONSUL_HTTP_SSL ? isTrue('CONSUL_HTTP_SSL', env.CONSUL_HTTP_SSL) : false;
  const own = env._CONSUL_HOST || env._CONSUL_PORT;
  const given = own ? undefined : env.CONSUL_HTTP_ADDR;
  const address = given || `${bracketed(env._CONSUL_HOST || '127.0.0.1')}:${env._CONSUL_PORT || '8500'}`;
  if (/^(https?|unix):\/\//.test(address)) return ssl ? address.replace(/^http:/, 'https:') : address;
  return `${ssl ? 'https' : 'http'}://${address}`;
}

function bracketed(host: string): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
}

/** As in Consul's client, the file overrides the value. */
function authOf(env: Env): object | undefined {
  if (env.CONSUL_HTTP_TOKEN_FILE) return { tokenFile: env.CONSUL_HTTP_TOKEN_FILE };
  return env.CONSUL_HTTP_TOKEN ? { token: env.CONSUL_HTTP_TOKEN } : undefined;
}

/** Go's spelling of booleans. */
function isTrue(name: string, text: string): boolean {
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw new ConsulConnectorError(`${name}: expected true or false`);
}
