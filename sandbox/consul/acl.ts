import { randomUUID } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import { refusals } from './refusal.ts';

export interface AuthMethod {
  readonly name: string;
  /** The service that the bearer may write, `undefined` when no binding rule matches; throws when it is not valid. */
  readonly bind: (bearer: string) => string | undefined;
  readonly maxTokenTtlMs?: number | undefined;
}

export interface AclToken {
  readonly accessor: string;
  readonly secret: string;
  /** Services that may be written; absent: all. */
  readonly service?: string | undefined;
  readonly method?: string | undefined;
  readonly createdAt: number;
  readonly expiresAt?: number | undefined;
}

/** ACLs as Connect needs them: tokens with service:write on one service, default deny. */
export class Acl {
  readonly enabled: boolean;
  readonly #clock: Clock;
  readonly #methods = new Map<string, AuthMethod>();
  readonly #tokens = new Map<string, AclToken>();

  constructor(enabled: boolean, clock: Clock) {
    this.enabled = enabled;
    this.#clock = clock;
  }

  get tokens(): readonly AclToken[] {
    return [...this.#tokens.values()].filter((token) => !this.#expired(token));
  }

  addMethod(method: AuthMethod): void {
    this.#methods.set(method.name, method);
  }

  create(service?: string): AclToken {
    return this.#add({ service });
  }

  delete(secret: string): void {
    this.#tokens.delete(secret);
  }

  /** Tokens obtained by login; they are lost when the cluster is rebuilt. */
  deleteLogins(): void {
    for (const token of this.#tokens.values()) if (token.method !== undefined) this.#tokens.delete(token.secret);
  }

  login(methodName: string, bearer: string): AclToken {
    if (!this.enabled) throw refusals.aclDisabled();
    const method = this.#methods.get(methodName);
    if (!method) throw refusals.noMethod(methodName);
    let service: string | undefined;
    try {
      service = method.bind(bearer);
    } catch {
      throw refusals.bearerRefused();
    }
    if (service === undefined) throw refusals.noRule();
    const expiresAt = method.maxTokenTtlMs === undefined ? undefined : this.#clock.now() + method.maxTokenTtlMs;
    return this.#add({ service, method: methodName, expiresAt });
  }

  logout(secret: string | undefined): void {
    const token = this.#resolve(secret);
    if (token?.method === undefined) throw refusals.notFromLogin();
    this.#tokens.delete(token.secret);
  }

  /** The token itself; throws when it is unknown. */
  self(secret: string | undefined): AclToken {
    const token = this.#resolve(secret);
    if (!token) throw refusals.aclNotFound();
    return token;
  }

  /** Throws unless this secret belongs to a known token; the anonymous one does not count. */
  requireToken(secret: string | undefined): void {
    if (this.enabled && !this.#resolve(secret)) throw refusals.anonymous();
  }

  /** Throws unless this secret may write the service. */
  requireWrite(secret: string | undefined, service: string): void {
    if (!this.enabled) return;
    const token = this.#resolve(secret);
    if (token && (token.service === undefined || token.service === service)) return;
    throw refusals.denied(token?.accessor ?? 'anonymous', service);
  }

  /** `undefined` for the anonymous token; throws for an unknown one. */
  #resolve(secret: string | undefined): AclToken | undefined {
    if (!this.enabled) throw refusals.aclDisabled();
    if (secret === undefined || secret === '') return undefined;
    const token = this.#tokens.get(secret);
    if (!token || this.#expired(token)) throw refusals.aclNotFound();
    return token;
  }

  #add(fields: Omit<AclToken, 'createdAt' | 'accessor' | 'secret'>): AclToken {
    const token = { ...fields, accessor: randomUUID(), secret: randomUUID(), createdAt: this.#clock.now() };
    this.#tokens.set(token.secret, token);
    return token;
  }

  #expired(token: AclToken): boolean {
    return token.expiresAt !== undefined && token.expiresAt <= this.#clock.now();
  }
}
