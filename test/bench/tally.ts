/** The requests of a client: `{ 'patch secrets': 1000 }`. */
export type Spent = Readonly<Record<string, number>>;

/** Requests by client, until they are taken. */
export class Tally {
  readonly #clients = new Map<string, Map<string, number>>();

  add(userAgent: string, request: string): void {
    const counts = this.#clients.get(userAgent) ?? new Map<string, number>();
    this.#clients.set(userAgent, counts.set(request, (counts.get(request) ?? 0) + 1));
  }

  /** Of all clients whose user agent begins with this; they stay counted. */
  look(userAgent: string): Spent {
    const all: Record<string, number> = {};
    for (const client of this.#of(userAgent))
      for (const [request, count] of this.#clients.get(client) ?? []) all[request] = (all[request] ?? 0) + count;
    return all;
  }

  /** The same, and resets them to zero; the counts of other clients do not change. */
  take(userAgent: string): Spent {
    const all = this.look(userAgent);
    for (const client of this.#of(userAgent)) this.#clients.delete(client);
    return all;
  }

  #of(userAgent: string): string[] {
    return [...this.#clients.keys()].filter((client) => client.startsWith(userAgent));
  }
}

/** All requests that change something, except those of elections. */
export function writesIn(spent: Spent): number {
  const writing = Object.entries(spent).filter(([what]) => /^(create|update|patch|delete) /.test(what));
  return writing.filter(([what]) => !/leases/.test(what)).reduce((sum, [, count]) => sum + count, 0);
}
