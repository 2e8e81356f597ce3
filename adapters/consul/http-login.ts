import { z } from 'zod';
import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { LoginConfig } from './config.ts';
import { HTTP_LOGIN_ROWS } from './errors.ts';
import type { ConsulHttp } from './http.ts';
import { parsed } from './protocol/read-http.ts';
import type { LoginPort, LoginToken } from './tokens.ts';

const TIMEOUT_MS = 30_000;
/**
 * A follower that is asked before it has the token caches for 30 s that it does not exist: use stale reads until it is
 * there.
 */
const SETTLE_EVERY_MS = 100;
const SETTLE_TRIES = 20;

const loginAnswer = z.object({
  SecretID: z.string().min(1),
  CreateTime: z.string().nullish(),
  ExpirationTime: z.string().nullish(),
});
/** Consul grants no shorter life; a shorter one is a clock error, and would make us log in again and again. */
const SHORTEST_LIFE_MS = 60_000;

export class HttpLogin implements LoginPort {
  readonly #http: ConsulHttp;
  readonly #host: Host;

  constructor(http: ConsulHttp, host: Host) {
    this.#http = http;
    this.#host = host;
  }

  async login(config: LoginConfig, bearer: string, signal: AbortSignal): Promise<LoginToken> {
    const what = `Consul at ${this.#http.address}: login with ${config.method}`;
    const query = { dc: config.datacenter, ns: config.namespace };
    const body = { AuthMethod: config.method, BearerToken: bearer, Meta: config.meta };
    const answer = await this.#http.request(
      { method: 'POST', path: '/v1/acl/login', query, body, timeoutMs: TIMEOUT_MS, meaning: HTTP_LOGIN_ROWS },
      signal,
    );
    const { SecretID: secret, CreateTime, ExpirationTime } = parsed(what, loginAnswer, answer.body);
    // Both times are Consul's, since its clock may differ from ours.
    const lifeMs = Date.parse(ExpirationTime ?? '') - Date.parse(CreateTime ?? '');
    return Number.isNaN(lifeMs) ? { secret } : { secret, lifeMs: Math.max(lifeMs, SHORTEST_LIFE_MS) };
  }

  async settled(token: string, signal: AbortSignal): Promise<void> {
    const path = '/v1/acl/token/self';
    for (let tries = 1; ; tries++) {
      try {
        await this.#http.request({ path, query: { stale: '' }, token, timeoutMs: TIMEOUT_MS }, signal);
        return;
      } catch (error) {
        if (!(error instanceof MeshError) || error.code !== 'ERR_MESH_TOKEN' || tries >= SETTLE_TRIES) throw error;
        await this.#host.clock.sleep(SETTLE_EVERY_MS, signal);
      }
    }
  }

  async logout(token: string, signal: AbortSignal): Promise<void> {
    await this.#http.request({ method: 'POST', path: '/v1/acl/logout', token, timeoutMs: TIMEOUT_MS }, signal);
  }
}
