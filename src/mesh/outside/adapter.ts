import { unlessAborted } from '../../async/linked-signal.ts';
import type { Adapter, AdapterCore, Checking, Issuer, Source } from '../adapter.ts';
import { MESH_ERROR_CODES, MeshError, type Retry } from '../error.ts';
import {
  certificatesFrom,
  expectationFrom,
  functionsOf,
  identityFrom,
  needsFrom,
  tlsFrom,
  tokenFieldsFrom,
} from './values.ts';

/** Of the contract between the agent and adapters from outside. It changes when an adapter must change. */
export const CONTRACT_VERSION = 1;

/** What the module of an adapter exports. */
export interface AdapterModule<C = unknown> {
  /** `CONTRACT_VERSION` of the package that it was built with. */
  readonly contractVersion: number;
  readonly adapter: AdapterCore<C>;
}

/** Words that CEL keeps for itself: the name stands in a rule of the CustomResourceDefinition. */
const CEL_WORDS: ReadonlySet<string> = new Set([
  ...['true', 'false', 'null', 'in', 'as', 'break', 'const', 'continue', 'else', 'for', 'function', 'if', 'import'],
  ...['let', 'loop', 'package', 'namespace', 'return', 'var', 'void', 'while'],
]);
const MESH_NAME = /^[a-z][a-zA-Z0-9]{0,62}$/;

/**
 * The adapter of a module from outside. Whatever it returns is checked and made into values of this program, and
 * whatever it throws has a code, so that a defect of it is a failure of its own MeshCertificates alone. Throws
 * ERR_ADAPTER_LOAD when the module is not an adapter. `file` is for messages.
 */
export function outsideAdapter(module: unknown, file: string): Adapter {
  const refuse = (why: string) => new MeshError('ERR_ADAPTER_LOAD', `adapter ${file}: ${why}`, { retry: 'never' });
  const { contractVersion, adapter: given } = module as Partial<AdapterModule>;
  if (given === undefined) throw refuse('it does not export "adapter"; see docs/adapters.md');
  if (contractVersion !== CONTRACT_VERSION) {
    const found = typeof contractVersion === 'number' ? String(contractVersion) : 'no version';
    throw refuse(
      `it exports contractVersion ${found}, and this agent has version ${CONTRACT_VERSION}; build it with the package of this release`,
    );
  }
  try {
    functionsOf(given, 'the adapter', ['expect', 'needs', 'open']);
    functionsOf(given.config, 'its config', ['parse']);
    if (typeof given.mesh !== 'string' || !isMeshName(given.mesh)) {
      throw new TypeError('its mesh is not a name: a lower-case letter, then letters and digits');
    }
    if (typeof given.title !== 'string' || given.title === '') throw new TypeError('it has no title');
    return checked(given, file, { tls: tlsFrom(given.tls, 'tls'), tokenFields: tokenFieldsFrom(given.tokenFields) });
  } catch (cause) {
    throw refuse(`${messageOf(cause)}; correct the adapter`);
  }
}

/** In the place of an adapter that cannot be loaded: its MeshCertificates fail with the reason, and no others. */
export function unloadedAdapter(mesh: string, error: MeshError): Adapter {
  return {
    mesh,
    title: mesh,
    config: { parse: (input) => input },
    expect: () => ({ form: 'spiffe' }),
    needs: () => [],
    tls: {},
    open() {
      throw error;
    },
  };
}

export const isMeshName = (name: string): boolean => MESH_NAME.test(name) && !CEL_WORDS.has(name);

type CheckedValues = Required<Pick<AdapterCore, 'tls' | 'tokenFields'>>;

/** Every member of the core, so that a further one cannot be forgotten here. */
function checked(given: AdapterCore, file: string, values: CheckedValues): Required<AdapterCore> {
  const guard = new Guard(`adapter ${given.mesh} (${file})`);
  return {
    ...values,
    mesh: given.mesh,
    title: given.title,
    config: {
      parse(input) {
        const config: unknown = given.config.parse(input);
        if (!(config instanceof Promise)) return config;
        config.catch(() => {});
        throw guard.broken('config.parse() returns a promise');
      },
    },
    expect: (config, host) => guard.call('expect()', () => expectationFrom(given.expect(config, host))),
    needs: (config, host) => guard.call('needs()', () => needsFrom(given.needs(config, host))),
    tlsFor: (config) =>
      guard.call('tlsFor()', () =>
        given.tlsFor ? tlsFrom(given.tlsFor(config), 'what tlsFor() returns') : values.tls,
      ),
    open: (config, host) => guard.call('open()', () => opened(given.open(config, host), guard)),
  };
}

function opened(given: unknown, guard: Guard): (Source | Issuer) & Partial<Checking> {
  const found = functionsOf(given, 'what open() returns', []) as unknown as Partial<Source & Issuer & Checking>;
  const { watch, issue, roots, stale, check, overdue } = found;
  const dispose = found[Symbol.asyncDispose];
  if (typeof dispose !== 'function') throw new TypeError('what open() returns cannot be disposed of');
  if ((typeof watch === 'function') === (typeof issue === 'function')) {
    throw new TypeError('what open() returns must have either watch() or issue()');
  }
  const shared = {
    [Symbol.asyncDispose]: () => guard.ending(() => dispose.call(found)),
    ...(check
      ? {
          check: (...args: Parameters<typeof check>) =>
            guard.later<void>(
              'check()',
              () => check.apply(found, args),
              () => undefined,
            ),
        }
      : {}),
  };
  if (watch) {
    return {
      ...shared,
      ...(typeof overdue === 'number' && overdue > 0 && overdue <= 1 ? { overdue } : {}),
      watch: (signal) => guard.stream('watch()', () => watch.call(found, signal), identityFrom, signal),
    };
  }
  return {
    ...shared,
    issue: (signal) => guard.later('issue()', () => issue?.call(found, signal), identityFrom, signal),
    ...(roots
      ? {
          roots: (signal: AbortSignal) =>
            guard.stream(
              'roots()',
              () => roots.call(found, signal),
              (one) => certificatesFrom(one, 'the roots'),
              signal,
            ),
        }
      : {}),
    ...(stale
      ? {
          stale: (current: Parameters<typeof stale>[0]) =>
            guard.call('stale()', () => {
              const why: unknown = stale.call(found, current);
              return why === undefined ? undefined : String(why);
            }),
        }
      : {}),
  };
}

/** Gives whatever an adapter from outside throws a code. */
class Guard {
  readonly #title: string;

  constructor(title: string) {
    this.#title = title;
  }

  broken(what: string, cause?: unknown): MeshError {
    return new MeshError('ERR_ADAPTER_BROKEN', `${this.#title}: ${what}; correct the adapter`, { cause });
  }

  call<T>(what: string, run: () => T): T {
    try {
      return run();
    } catch (error) {
      throw this.#coded(what, error);
    }
  }

  async later<T>(what: string, work: () => unknown, read: (value: unknown) => T, signal?: AbortSignal): Promise<T> {
    try {
      signal?.throwIfAborted();
      return read(await (signal ? unlessAborted(Promise.resolve(work()), signal) : work()));
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw this.#coded(what, error);
    }
  }

  async *stream<T>(
    what: string,
    open: () => AsyncIterable<unknown>,
    read: (value: unknown) => T,
    signal: AbortSignal,
  ): AsyncGenerator<T> {
    let values: AsyncIterator<unknown> | undefined;
    try {
      signal.throwIfAborted();
      values = open()[Symbol.asyncIterator]();
      for (;;) {
        const { done, value } = await unlessAborted(values.next(), signal);
        if (done) break;
        yield read(value);
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw this.#coded(what, error);
    } finally {
      // Not awaited: one that ignores its signal would keep its MeshCertificate from ending.
      void this.ending(() => values?.return?.());
    }
    if (!signal.aborted) throw this.broken(`${what} ended by itself`);
  }

  /** An adapter that cannot close ends nothing else. */
  async ending(work: () => unknown): Promise<void> {
    try {
      await work();
    } catch {}
  }

  #coded(what: string, error: unknown): MeshError {
    if (!(error instanceof MeshError)) return this.broken(`${what} failed: ${messageOf(error)}`, error);
    const { code, message, retry } = error as Partial<MeshError>;
    const known = MESH_ERROR_CODES.find((one) => one === code);
    if (known === undefined) return this.broken(`${what} threw the unknown code ${String(code)}: ${message}`, error);
    return new MeshError(known, String(message), { cause: error, retry: retryFrom(retry) });
  }
}

function retryFrom(value: unknown): Retry {
  if (value === 'never') return value;
  const { afterMs } = (typeof value === 'object' && value !== null ? value : {}) as { afterMs?: unknown };
  return typeof afterMs === 'number' && afterMs >= 0 ? { afterMs } : 'soon';
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message || error.name : 'something that is no Error was thrown';
