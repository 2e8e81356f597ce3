type IntentionAction = 'allow' | 'deny';

/**
 * Which services may call which, as sidecars enforce it: by trust domain, namespace and service of the caller, not
 * datacenter.
 */
export class Intentions {
  readonly #fallback: IntentionAction;
  readonly #trustDomain: () => string;
  readonly #rules = new Map<string, IntentionAction>();

  constructor(fallback: IntentionAction, trustDomain: () => string) {
    this.#fallback = fallback;
    this.#trustDomain = trustDomain;
  }

  set(source: string, destination: string, verdict: IntentionAction): void {
    this.#rules.set(`${source} ${destination}`, verdict);
  }

  /** Whether the holder of this SPIFFE ID may call that service. */
  allows(peerId: string, destination: string): boolean {
    const source = new RegExp(`^spiffe://${this.#trustDomain()}/ns/default/dc/[^/]+/svc/([^/]+)$`).exec(peerId)?.[1];
    if (source === undefined) return false;
    const verdict = this.#rules.get(`${source} ${destination}`) ?? this.#rules.get(`* ${destination}`);
    return (verdict ?? this.#fallback) === 'allow';
  }
}
