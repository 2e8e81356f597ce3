/** What a drill does, what must hold during it, and what was observed. */
export interface Drill {
  readonly drill: string;
  readonly mustHold: string;
  readonly seen: string;
}

/** Collects the drills of a file and prints them when it ends. */
export class DrillTable {
  readonly #drills: Drill[] = [];

  add(drill: string, mustHold: string, seen: string): void {
    this.#drills.push({ drill, mustHold, seen });
  }

  print(): void {
    const rows = this.#drills.map(({ drill, mustHold, seen }) => `| ${drill} | ${mustHold} | ${seen} |`);
    console.log(['', '| drill | must hold | result |', '|---|---|---|', ...rows, ''].join('\n'));
  }
}

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
