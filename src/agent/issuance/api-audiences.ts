import type { Clock } from '../../async/clock.ts';
import type { Kube } from '../../kube/api.ts';
import { MeshError } from '../../mesh/error.ts';

/** The audiences of an API server change only with its configuration. */
const REMEMBERED_MS = 60 * 60_000;
/** MeshCertificates choose audiences, so the cache has a limit; an audience that was evicted is checked again. */
const MOST_REMEMBERED = 1000;

interface AudienceAnswer {
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
  readonly #answers = new Map<string, AudienceAnswer>();

  constructor(kube: Pick<Kube, 'accepts'>, clock: Clock) {
    this.#kube = kube;
    this.#clock = clock;
  }

  /** Throws ERR_NOT_ALLOWED when the API server accepts this token, made for this audience. */
  async refuse(audience: string, token: string): Promise<void> {
    if (!(await this.#opens(audience, token))) return;
    throw new MeshError(
      'ERR_NOT_ALLOWED',
      `a token for audience ${audience} opens the Kubernetes API with the rights of its ServiceAccount, so the agent does not send it; choose another audience, or start the agent with --allow-audience=${audience} (chart value allow.audiences)`,
      { retry: 'never' },
    );
  }

  #opens(audience: string, token: string): Promise<boolean> {
    const now = this.#clock.monotonic();
    const known = this.#answers.get(audience);
    if (known && now - known.askedAt < REMEMBERED_MS) return known.opens;
    if (this.#answers.size >= MOST_REMEMBERED) this.#answers.clear();
    const opens = this.#kube.accepts(token).catch((cause: unknown) => {
      this.#answers.delete(audience);
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new MeshError('ERR_MESH_TOKEN', `could not check whether a token opens the Kubernetes API: ${why}`, {
        cause,
      });
    });
    this.#answers.set(audience, { askedAt: now, opens });
    return opens;
  }
}
