import { inspect } from 'node:util';
import { type Clock, sleepOn } from '../../src/async/clock.ts';
import { once } from '../../src/async/linked-signal.ts';
import { Trigger } from '../../src/async/trigger.ts';
import type { ConfigMapRef, Host, TokenRequest } from '../../src/mesh/adapter.ts';
import type { Log } from '../../src/mesh/log.ts';

type Data = Readonly<Record<string, string>>;

/** A Host over values in memory that records everything that passes through it. */
export class RecordingHost implements Host {
  readonly clock: Clock;
  readonly random = () => 0.5;
  namespace: string;
  readonly reports: Error[] = [];
  readonly tokenRequests: TokenRequest[] = [];
  readonly tokensGiven: string[] = [];
  /** Each line of the log, with its fields. */
  readonly lines: string[] = [];
  /** Calls of anything but log, random and the time of day. */
  touched = 0;
  /** Pending sleeps. */
  sleeping = 0;
  mint: (request: TokenRequest) => Promise<string> | string = () => {
    throw new Error('this test has no tokens');
  };
  readonly #values = new Map<string, unknown>();
  readonly #changes = new Set<Trigger>();

  constructor(clock: Clock, namespace = 'emissary') {
    this.namespace = namespace;
    this.clock = {
      now: () => clock.now(),
      monotonic: () => clock.monotonic(),
      after: (ms, act) => {
        this.touched++;
        this.sleeping++;
        const over = once(() => this.sleeping--);
        const cancel = clock.after(ms, () => {
          over[Symbol.dispose]();
          act();
        });
        return () => {
          over[Symbol.dispose]();
          cancel();
        };
      },
      sleep: (ms, signal) => sleepOn(this.clock, ms, signal),
    };
  }

  readonly log: Log = {
    debug: (fields, message) => void this.lines.push(inspect([fields, message], { depth: null })),
    info: (fields, message) => this.log.debug(fields, message),
    warn: (fields, message) => this.log.debug(fields, message),
    error: (fields, message) => this.log.debug(fields, message),
    child: () => this.log,
  };

  report(error: Error): void {
    this.reports.push(error);
  }

  async token(request: TokenRequest, signal: AbortSignal): Promise<string> {
    this.touched++;
    signal.throwIfAborted();
    this.tokenRequests.push(request);
    const token = await this.mint(request);
    this.tokensGiven.push(token);
    return token;
  }

  setConfigMap({ namespace, name }: ConfigMapRef, data: Data | undefined): void {
    this.#set(`configMap ${namespace}/${name}`, data);
  }

  setClusterTrustBundle(name: string, pem: string | undefined): void {
    this.#set(`clusterTrustBundle ${name}`, pem);
  }

  setFile(path: string, text: string | undefined): void {
    this.#set(`file ${path}`, text);
  }

  configMap({ namespace, name }: ConfigMapRef, signal: AbortSignal): AsyncGenerator<Data | undefined> {
    return this.#watch(() => this.#values.get(`configMap ${namespace}/${name}`) as Data | undefined, signal);
  }

  clusterTrustBundle(name: string, signal: AbortSignal): AsyncGenerator<string | undefined> {
    return this.#watch(() => this.#values.get(`clusterTrustBundle ${name}`) as string | undefined, signal);
  }

  file(path: string, signal: AbortSignal): AsyncGenerator<string | undefined> {
    return this.#watch(() => this.#values.get(`file ${path}`) as string | undefined, signal);
  }

  /** Reads `files` in place of those that were set; such as the agent's own, on its file system. */
  readFiles: Host['files'] | undefined;

  files(paths: readonly string[], signal: AbortSignal): AsyncIterable<readonly (string | undefined)[]> {
    if (this.readFiles) {
      this.touched++;
      return this.readFiles(paths, signal);
    }
    return this.#watch(() => paths.map((path) => this.#values.get(`file ${path}`) as string | undefined), signal);
  }

  /** How many watches of objects and files are open. */
  get watches(): number {
    return this.#changes.size;
  }

  #set(key: string, value: unknown): void {
    this.#values.set(key, value);
    for (const change of this.#changes) change.fire();
  }

  async *#watch<T>(read: () => T, signal: AbortSignal): AsyncGenerator<T> {
    this.touched++;
    const change = new Trigger();
    this.#changes.add(change);
    try {
      for (;;) {
        yield read();
        await change.wait(signal);
      }
    } finally {
      this.#changes.delete(change);
    }
  }
}
