import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { ConsulConfig, LoginConfig } from './config.ts';
import { GRPC_LOGIN_ROWS } from './errors.ts';
import type { Servers } from './servers.ts';
import type { LoginPort, LoginToken } from './tokens.ts';

const ACL = 'hashicorp.consul.acl.ACLService';
export const DEADLINE_MS = 30_000;
/**
 * Servers replicate a token in a few milliseconds; one that is asked earlier caches for 30 s that it does not exist.
 */
const SETTLE_MS = 100;

interface LoginAnswer {
  readonly token: { readonly secret_id: string } | null;
}

export class GrpcLogin implements LoginPort {
  readonly #servers: Servers;
  readonly #host: Host;
  readonly #partition: string | undefined;

  constructor(servers: Servers, config: ConsulConfig, host: Host) {
    this.#servers = servers;
    this.#host = host;
    this.#partition = config.partition;
  }

  async login(config: LoginConfig, bearer: string, signal: AbortSignal): Promise<LoginToken> {
    const { method, meta, namespace, datacenter } = config;
    const request = {
      auth_method: method,
      bearer_token: bearer,
      meta,
      ...(namespace === undefined ? {} : { namespace }),
      ...(this.#partition === undefined ? {} : { partition: this.#partition }),
      ...(datacenter === undefined ? {} : { datacenter }),
    };
    const answer = await this.#servers.call(
      `login with ${method}`,
      signal,
      ({ channel }) => channel.unary<LoginAnswer>(request, { method: `${ACL}/Login`, deadlineMs: DEADLINE_MS, signal }),
      GRPC_LOGIN_ROWS,
    );
    const secret = answer.token?.secret_id;
    if (secret) return { secret };
    throw new MeshError('ERR_MESH_BAD_RESPONSE', `login with ${method}: an answer without a token; is this Consul?`);
  }

  settled(_token: string, signal: AbortSignal): Promise<void> {
    return this.#host.clock.sleep(SETTLE_MS, signal);
  }

  async logout(token: string, signal: AbortSignal): Promise<void> {
    const call = { method: `${ACL}/Logout`, deadlineMs: DEADLINE_MS, signal };
    await this.#servers.call('logout', signal, ({ channel }) => channel.unary({ token }, call));
  }
}
