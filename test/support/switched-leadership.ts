import { alone, type Leadership } from '../../src/agent/election.ts';

/** A leadership that a test gives and takes. */
export class SwitchedLeadership implements Leadership {
  readonly #listeners: (() => void)[] = [];
  #leads: boolean;
  readonly fence = alone.fence;
  readonly run = alone.run;
  readonly leases = alone.leases;

  constructor(leads: boolean) {
    this.#leads = leads;
  }

  leads(): boolean {
    return this.#leads;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  change(leads: boolean): void {
    this.#leads = leads;
    for (const listener of this.#listeners) listener();
  }
}
