/** One answered request. */
export interface AuditEntry {
  readonly at: number;
  readonly verb: string;
  readonly group: string;
  /** `secrets`, or with its subresource: `meshcertificates/status`. Empty for discovery and health. */
  readonly resource: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly path: string;
  readonly userAgent: string;
  readonly user: string;
  readonly status: number;
  readonly dryRun: boolean;
}

/** Enough for a long demo; older entries are dropped, counts stay. */
const KEPT = 20_000;

/** The requests to the server, their users, and their counts. */
export class AuditLog {
  #entries: AuditEntry[] = [];
  #counts = new Map<string, number>();

  add(entry: AuditEntry): void {
    this.#entries.push(entry);
    if (this.#entries.length > KEPT) this.#entries.splice(0, KEPT / 2);
    const key = `${entry.verb} ${entry.resource}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  get entries(): readonly AuditEntry[] {
    return this.#entries;
  }

  /** `{ 'patch secrets': 3, 'get leases': 7 }` since the start or the last reset. */
  counts(): Record<string, number> {
    return Object.fromEntries([...this.#counts].sort());
  }

  count(filter: Partial<Pick<AuditEntry, 'verb' | 'resource' | 'namespace' | 'name' | 'userAgent' | 'user'>>): number {
    const wanted = Object.entries(filter);
    return this.#entries.filter((entry) => wanted.every(([field, value]) => entry[field as keyof AuditEntry] === value))
      .length;
  }

  reset(): void {
    this.#entries = [];
    this.#counts.clear();
  }
}
