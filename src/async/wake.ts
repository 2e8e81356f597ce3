import { Trigger } from './trigger.ts';

/** Wakes a renewal loop: to check the clock again, or to renew now. */
export class Wake extends Trigger {
  #renewal = false;

  renew(): void {
    this.#renewal = true;
    this.fire();
  }

  /** Whether a renewal was requested since the last call. */
  takeRenewal(): boolean {
    const was = this.#renewal;
    this.#renewal = false;
    return was;
  }
}
