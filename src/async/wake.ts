import { Trigger } from './trigger.ts';

/** Wakes who renews: to look at the clock again, or to renew now. */
export class Wake extends Trigger {
  #renewal = false;

  renew(): void {
    this.#renewal = true;
    this.fire();
  }

  /** Whether a renewal was asked for since this was asked last. */
  takeRenewal(): boolean {
    const was = this.#renewal;
    this.#renewal = false;
    return was;
  }
}
