/** `spec.vault` of a MeshCertificate, with every default filled in. */
export interface VaultConfig {
  /** `https://vault.vault:8200`. */
  readonly address: URL;
  /** Path of the PKI secrets engine. */
  readonly mount: string;
  /** The role of the engine that signs. */
  readonly role: string;
  /** The SPIFFE ID to ask for. */
  readonly id: string;
  /** Lifetime to ask for, as Vault writes it; absent: the role's own. */
  readonly ttl: string | undefined;
  readonly auth: {
    /** Path of the Kubernetes auth method. */
    readonly mount: string;
    readonly role: string;
    /** An account of the MeshCertificate's namespace; a token is minted for it. */
    readonly serviceAccount: string;
    readonly audience: string;
  };
  /** ConfigMap of the MeshCertificate's namespace whose `ca.crt` verifies Vault; absent: the system's CAs. */
  readonly caConfigMap: string | undefined;
}

type Fields = Readonly<Record<string, unknown>>;

/** Throws an Error that names the field. The agent shows it in the status of the MeshCertificate. */
export function parseConfig(input: unknown): VaultConfig {
  const { address, mount, role, id, ttl, auth, caConfigMap, ...unknown } = fields(input, 'vault');
  refuse(unknown, '');
  const { mount: authMount, role: authRole, serviceAccount, audience, ...more } = fields(auth, 'auth');
  refuse(more, 'auth.');
  return {
    address: url(text(address, 'address')),
    mount: path(text(mount ?? 'pki', 'mount'), 'mount'),
    role: path(text(role, 'role'), 'role'),
    id: spiffeId(text(id, 'id')),
    ttl: ttl === undefined ? undefined : text(ttl, 'ttl'),
    auth: {
      mount: path(text(authMount ?? 'kubernetes', 'auth.mount'), 'auth.mount'),
      role: text(authRole, 'auth.role'),
      serviceAccount: text(serviceAccount, 'auth.serviceAccount'),
      audience: text(audience ?? 'vault', 'auth.audience'),
    },
    caConfigMap: caConfigMap === undefined ? undefined : text(caConfigMap, 'caConfigMap'),
  };
}

function fields(value: unknown, name: string): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw new Error(`${name} must be an object`);
}

function refuse(unknown: Fields, prefix: string): void {
  const [name] = Object.keys(unknown);
  if (name !== undefined) throw new Error(`there is no field ${prefix}${name}`);
}

function text(value: unknown, name: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw new Error(`${name} must be text`);
}

function path(value: string, name: string): string {
  if (/^[\w-]+(\/[\w-]+)*$/.test(value)) return value;
  throw new Error(`${name} must be a path of letters, digits, "_" and "-"`);
}

function spiffeId(value: string): string {
  if (/^spiffe:\/\/[a-z0-9._-]+(\/[\w.-]+)+$/.test(value)) return value;
  throw new Error('id must be a SPIFFE ID, such as spiffe://corp.example/ns/emissary/sa/emissary');
}

/** Tokens must not travel in the clear, so plain HTTP is for loopback addresses alone. */
function url(value: string): URL {
  const parsed = URL.canParse(value) ? new URL(value) : undefined;
  const isLoopback = parsed !== undefined && ['127.0.0.1', '[::1]', 'localhost'].includes(parsed.hostname);
  if (parsed?.protocol === 'https:' || (parsed?.protocol === 'http:' && isLoopback)) return parsed;
  throw new Error('address must be https://HOST:PORT');
}
