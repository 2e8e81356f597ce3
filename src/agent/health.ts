import { codeOf } from '../mesh/error.ts';
import { safeMessage } from '../mesh/secrets.ts';
import type { Leadership } from './election.ts';

export interface HealthProblem {
  readonly code: string;
  readonly message: string;
}

/** What is wrong with the agent itself, for /readyz: its configuration, its watches, its Lease. */
export class Health {
  readonly #leadership: Pick<Leadership, 'leases'>;
  /** Called at each read: why the cluster cannot be followed now. */
  watching: () => Error | undefined = () => undefined;
  readonly #problems = new Map<string, HealthProblem>();
  #configured = false;

  constructor(leadership: Pick<Leadership, 'leases'>) {
    this.#leadership = leadership;
  }

  /** A first configuration was accepted. */
  configured(): void {
    this.#configured = true;
    this.clear('config');
  }

  /** Each place has at most one problem at a time. */
  problem(place: string, problem: HealthProblem): void {
    this.#problems.set(place, { ...problem, message: safeMessage(problem.message) });
  }

  clear(place: string): void {
    this.#problems.delete(place);
  }

  read(): { ready: boolean; leader?: boolean; problems: readonly HealthProblem[] } {
    const { leases } = this.#leadership;
    return {
      ready: this.#configured,
      ...(leases.length > 0 ? { leader: leases.some(({ isHeld }) => isHeld) } : {}),
      problems: [...this.#problems.values(), ...this.#watchProblem()],
    };
  }

  #watchProblem(): readonly HealthProblem[] {
    const error = this.watching();
    if (!error) return [];
    return [{ code: codeOf(error, 'ERR_KUBE_SERVER'), message: safeMessage(error.message) }];
  }
}
