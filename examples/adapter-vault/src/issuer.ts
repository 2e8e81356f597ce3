import {
  createCsr,
  formatPem,
  type Host,
  type Identity,
  type Issuer,
  MeshError,
  PrivateKey,
  parseCertificates,
} from 'meshcert/adapter';
import { type Asking, post } from './client.ts';
import type { VaultConfig } from './config.ts';

/** Logs in with a token of the ServiceAccount, and lets the PKI engine sign a new key each time. */
export class VaultIssuer implements Issuer {
  readonly #config: VaultConfig;
  readonly #host: Host;

  constructor(config: VaultConfig, host: Host) {
    this.#config = config;
    this.#host = host;
  }

  async issue(signal: AbortSignal): Promise<Identity> {
    signal.throwIfAborted();
    const { address, mount, role, id, ttl } = this.#config;
    const asking: Asking = { address, ca: await this.#ca(signal), clock: this.#host.clock, signal };
    const token = await this.#login(asking);
    const key = PrivateKey.generate();
    const request = {
      csr: formatPem('CERTIFICATE REQUEST', createCsr(key, { uris: [id] })),
      uri_sans: id,
      format: 'pem',
      ...(ttl === undefined ? {} : { ttl }),
    };
    const { data } = await post(`${mount}/sign/${role}`, request, { ...asking, token });
    return identityOf(id, key, data);
  }

  async #login(asking: Asking): Promise<string> {
    const { address, auth } = this.#config;
    const jwt = await this.#host.token(
      {
        audience: auth.audience,
        serviceAccount: { name: auth.serviceAccount, namespace: this.#host.namespace },
        destinations: [{ address: address.host, secure: true }],
      },
      asking.signal,
    );
    const answer = await post(`auth/${auth.mount}/login`, { role: auth.role, jwt }, asking);
    const { client_token: token } = (answer.auth ?? {}) as { client_token?: unknown };
    if (typeof token === 'string') return token;
    throw new MeshError('ERR_MESH_BAD_RESPONSE', `Vault at ${address.host} answered a login without a token`);
  }

  async #ca(signal: AbortSignal): Promise<string | undefined> {
    const { caConfigMap: name } = this.#config;
    if (name === undefined) return undefined;
    const ref = { namespace: this.#host.namespace, name };
    for await (const data of this.#host.configMap(ref, signal)) {
      if (data?.['ca.crt'] !== undefined) return data['ca.crt'];
      break;
    }
    throw new MeshError('ERR_MESH_CONFIG', `ConfigMap ${ref.namespace}/${name} has no ca.crt; put Vault's CA there`);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** The chain without its root, and the roots apart. */
function identityOf(id: string, key: PrivateKey, data: unknown): Identity {
  const { certificate, ca_chain: chain, issuing_ca: issuer } = (data ?? {}) as Readonly<Record<string, unknown>>;
  const above = Array.isArray(chain) && chain.length > 0 ? chain : [issuer];
  try {
    const [leaf] = parseCertificates(String(certificate));
    const authorities = parseCertificates(above.map(String).join('\n'));
    const roots = authorities.filter(({ selfSigned }) => selfSigned);
    if (leaf && roots.length > 0) {
      return { id, key, chain: [leaf, ...authorities.filter(({ selfSigned }) => !selfSigned)], roots };
    }
  } catch (cause) {
    throw new MeshError('ERR_MESH_BAD_RESPONSE', 'Vault signed, and what it answered holds no certificates', { cause });
  }
  throw new MeshError(
    'ERR_MESH_CONFIG',
    'Vault signed, and its ca_chain holds no root; import the root into the PKI engine beside the intermediate',
  );
}
