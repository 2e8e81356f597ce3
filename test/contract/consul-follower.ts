import { consul } from '../../adapters/consul/adapter.ts';
import { identities } from '../../src/agent/identities.ts';
import type { Clock } from '../../src/async/clock.ts';
import { renewAt } from '../../src/core/schedule.ts';
import type { Host } from '../../src/mesh/adapter.ts';
import type { MeshError } from '../../src/mesh/error.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { silentLog } from '../../src/mesh/log.ts';

export interface FollowerOptions {
  readonly clock: Clock;
  /** The content of token files, by path. */
  readonly files?: ReadonlyMap<string, string>;
  /** The bearer token at each login. */
  readonly bearer?: () => string;
}

export function testHost({ clock, files, bearer }: FollowerOptions, report: (error: Error) => void = () => {}): Host {
  return {
    clock,
    log: silentLog,
    // Early in each spread and window, so that tests do not wait for chance.
    random: () => 0.05,
    namespace: 'emissary',
    token: async () => bearer?.() ?? '',
    async *configMap() {
      yield undefined;
    },
    async *clusterTrustBundle() {
      yield undefined;
    },
    async *file(path) {
      yield files?.get(path);
    },
    async *files(paths) {
      yield paths.map((path) => files?.get(path));
    },
    report,
  };
}

/** Runs the adapter as an agent would, and records everything that it reports. */
export class Follower implements AsyncDisposable {
  readonly seen: Identity[] = [];
  readonly errors: MeshError[] = [];
  readonly #stop = new AbortController();
  readonly #waiting = new Set<() => void>();
  readonly #running: Promise<void>;

  constructor(config: object, options: FollowerOptions) {
    const host = testHost(options, (error) => {
      this.errors.push(error as MeshError);
      this.#wake();
    });
    this.#running = this.#run(config, host);
  }

  get last(): Identity {
    const last = this.seen.at(-1);
    if (!last) throw new TypeError('nothing was seen yet');
    return last;
  }

  /** The first value, past or future, that fits. */
  async identity(fits: (identity: Identity) => boolean = () => true): Promise<Identity> {
    for (;;) {
      const found = this.seen.find(fits);
      if (found) return found;
      const broken = this.errors.find(({ cause }) => cause instanceof TypeError);
      if (broken) throw broken;
      await this.#change();
    }
  }

  /** The first error, past or future, that fits. A clock that runs faster can end a slow answer; the adapter asks again. */
  async error(fits: (error: MeshError) => boolean = ({ code }) => code !== 'ERR_MESH_TIMEOUT'): Promise<MeshError> {
    for (;;) {
      const found = this.errors.find(fits);
      if (found) return found;
      await this.#change();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the test ended'));
    await this.#running;
  }

  async #run(config: object, host: Host): Promise<void> {
    const opened = consul.open(consul.config.parse(config), host);
    const policy = {
      renewAt: (leaf: Parameters<typeof renewAt>[0]) => renewAt(leaf, 0.8),
      retryDelay: (attempt: number, error: MeshError) =>
        typeof error.retry === 'object' ? error.retry.afterMs : Math.min(500 * attempt, 3000),
      rootsRetryDelay: () => 1000,
      succeeded: () => {},
      admit: () => 0,
      refuse: async () => undefined,
      rootsSpreadMs: 1000,
    };
    try {
      for await (const identity of identities(opened, host, { policy }, this.#stop.signal)) {
        this.seen.push(identity);
        this.#wake();
      }
    } finally {
      await opened[Symbol.asyncDispose]();
    }
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}
