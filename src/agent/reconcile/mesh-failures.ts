import type { Clock } from '../../async/clock.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { codedProblem, type Problem } from '../../core/problem.ts';
import type { PublicationStatus } from '../../core/status.ts';
import type { IdentityStream } from '../issuance/identity-stream.ts';

/** Why the mesh gives no newer certificate, across restarts and changes of the leader. */
export class MeshFailures {
  readonly #clock: Clock;
  readonly #stream: Pick<IdentityStream, 'planned' | 'hasTried'>;
  /** The newest failure since the mesh last gave something usable. */
  current: Problem | undefined;
  /** Why what is followed may be out of date, by source; the newest failure is last. */
  readonly #stale = new Map<string, Problem>();

  constructor(clock: Clock, stream: Pick<IdentityStream, 'planned' | 'hasTried'>) {
    this.#clock = clock;
    this.#stream = stream;
  }

  failed(error: Error): void {
    this.current = { ...codedProblem(error), at: this.#clock.now() };
  }

  /** Returns whether this is news. */
  stale(source: string, error: Error | undefined): boolean {
    const wasStale = this.#stale.delete(source);
    if (!error) return wasStale;
    // Without a time: it lasts until the source reports its end.
    this.#stale.set(source, codedProblem(error));
    return true;
  }

  clear(): void {
    this.current = undefined;
  }

  /**
   * Why no newer certificate is published; `problem` is the decision's. The expiry of the published certificate is not
   * the cause: the reason that no newer one followed is.
   */
  cause(problem: Problem | undefined, certificate: MeshCertificate, leading: boolean): Problem | undefined {
    const failure = this.current ?? [...this.#stale.values()].at(-1) ?? this.#recorded(certificate, leading);
    return problem?.code === 'ERR_VERIFY_EXPIRED' ? (failure ?? problem) : (problem ?? failure);
  }

  /**
   * The failure that the status records. The leader repeats it until its own first attempt; a follower makes no
   * attempts.
   */
  #recorded({ status }: MeshCertificate, leading: boolean): Problem | undefined {
    const error = (status as Partial<PublicationStatus> | undefined)?.lastError;
    if (!error) return undefined;
    const { planned, hasTried } = this.#stream;
    const isDue = !planned || planned.due <= this.#clock.now();
    if (leading && (hasTried || !isDue || !/^ERR_(MESH|VERIFY)_/.test(error.code))) return undefined;
    return { code: error.code, message: error.message, at: Date.parse(error.time) };
  }
}
