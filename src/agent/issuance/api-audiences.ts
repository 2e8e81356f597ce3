import { hash } from 'node:crypto';
import type { Clock } from '../../async/clock.ts';
import { audienceOf, opensApi } from '../../config/allow.ts';
import type { Kube } from '../../kube/api.ts';
import { MeshError } from '../../mesh/error.ts';

/** The audiences of an API server change only with its configuration. */
const REMEMBERED_MS = 60 * 60_000;
/** MeshCertificates choose audiences, so the cache has a limit; what was evicted is checked again. */
const MOST_REMEMBERED = 1000;

interface ApiAnswer {
  readonly askedAt: number;
  readonly opens: Promise<boolean>;
}

/**
 * Distinguishes tokens that open the Kubernetes API from those that do not. The token is sent to the API server itself
 * for review, because no object that every agent may read names its audiences.
 */
export class ApiAudiences {
  readonly #kube: Pick<Kube, 'accepts'>;
  readonly #clock: Clock;
  readonly #answers = new Map<string, ApiAnswer>();

  constructor(kube: Pick<Kube, 'accepts'>, clock: Clock) {
    this.#kube = kube;
    this.#clock = clock;
  }

  /** Throws ERR_NOT_ALLOWED when the API server accepts this token, made for this audience. */
  async refuse(audience: string, token: string): Promise<void> {
    if (await this.#opens(audience, token)) throw opensApi(`a token for audience ${audience}`, audience);
  }

  /** The same for a token that others made: its audience does not say which API server accepts it. */
  async refuseFile(path: string, token: string): Promise<void> {
    if (!(await this.#opens(`file ${hash('sha256', token)}`, token))) return;
    throw opensApi(`the token in ${path}`, audienceOf(token));
  }

  #opens(key: string, token: string): Promise<boolean> {
    const now = this.#clock.monotonic();
    const known = this.#answers.get(key);
    if (known && now - known.askedAt < REMEMBERED_MS) return known.opens;
    if (this.#answers.size >= MOST_REMEMBERED) this.#answers.clear();
    const opens = this.#kube.accepts(token).catch((cause: unknown) => {
      this.#answers.delete(key);
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new MeshError('ERR_MESH_TOKEN', `could not check whether a token opens the Kubernetes API: ${why}`, {
        cause,
      });
    });
    this.#answers.set(key, { askedAt: now, opens });
    return opens;
  }
}
