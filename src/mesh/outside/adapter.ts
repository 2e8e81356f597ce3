import { unlessAborted } from '../../async/linked-signal.ts';
import type { Fields } from '../../objects/objects.ts';
import { type Certificate, parseCertificates } from '../../pki/certificate.ts';
import { PrivateKey } from '../../pki/key.ts';
import type {
  Adapter,
  AdapterCore,
  Checking,
  Expectation,
  Issuer,
  Need,
  Source,
  TlsDefaults,
  TokenField,
} from '../adapter.ts';
import { MESH_ERROR_CODES, MeshError, type Retry } from '../error.ts';
import type { Identity } from '../identity.ts';

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

/** Of names that an adapter gives; none of a mesh is longer. */
const LONGEST_TEXT = 2048;

function fail(what: string): never {
  throw new TypeError(what);
}

function object(value: unknown, what: string): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Fields)
    : fail(`${what} is ${kindOf(value)}, not an object`);
}

function list(value: unknown, what: string): readonly unknown[] {
  return Array.isArray(value) ? value : fail(`${what} is ${kindOf(value)}, not an array`);
}

function text(value: unknown, what: string): string {
  if (typeof value !== 'string') fail(`${what} is ${kindOf(value)}, not a string`);
  return value.length > 0 && value.length <= LONGEST_TEXT ? value : fail(`${what} has ${value.length} characters`);
}

const optionalText = (value: unknown, what: string): string | undefined =>
  value === undefined ? undefined : text(value, what);

function oneOf<T extends string>(value: unknown, known: readonly T[], what: string): T {
  return known.find((one) => one === value) ?? fail(`${what} is not one of ${known.join(', ')}`);
}

/** `undefined`, `null`, `an array`, `a string`: never the value, which may be secret. */
function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/**
 * The identity as values of this program: certificates and keys of another copy of their classes, or of another
 * version, are read again from their PEM. Throws a TypeError that says what is missing.
 */
function identityFrom(value: unknown): Identity {
  const { id, key, chain, roots } = object(value, 'the identity');
  const found = {
    id: text(id, 'its id'),
    key: keyFrom(key),
    chain: certificatesFrom(chain, 'its chain'),
    roots: certificatesFrom(roots, 'its roots'),
  };
  return found.chain.length > 0 ? found : fail('its chain is empty');
}

function certificatesFrom(value: unknown, what: string): readonly Certificate[] {
  const blocks = list(value, what).map((one) => text(object(one, `a member of ${what}`).pem, `the pem in ${what}`));
  if (blocks.length === 0) return [];
  try {
    return parseCertificates(blocks.join('\n'));
  } catch (cause) {
    return fail(`${what} cannot be read: ${cause instanceof Error ? cause.message : 'not PEM'}`);
  }
}

function keyFrom(value: unknown): PrivateKey {
  const { toPem } = object(value, 'its key');
  if (typeof toPem !== 'function') fail('its key has no toPem()');
  const pem: unknown = toPem.call(value);
  if (typeof pem !== 'string') fail('its key has no PEM');
  return PrivateKey.fromPem(pem);
}

function expectationFrom(value: unknown): Expectation {
  const { id, trustDomain, form } = object(value, 'what expect() returns');
  return {
    form: oneOf(form, ['spiffe', 'dns'], 'form'),
    id: optionalText(id, 'id'),
    trustDomain: optionalText(trustDomain, 'trustDomain'),
  };
}

function needsFrom(value: unknown): readonly Need[] {
  return list(value, 'what needs() returns').map((one): Need => {
    const need = object(one, 'a need');
    const of = (field: string) => text(need[field], field);
    const kind = oneOf(need.kind, ['configMap', 'clusterTrustBundle', 'token', 'address'], 'the kind of a need');
    if (kind === 'clusterTrustBundle') return { kind, name: of('name') };
    if (kind === 'address') return { kind, address: of('address'), field: of('field') };
    const place = { namespace: of('namespace'), name: of('name') };
    return kind === 'configMap' ? { kind, ...place } : { kind, ...place, audience: of('audience'), field: of('field') };
  });
}

function tlsFrom(value: unknown, what: string): TlsDefaults {
  const given = object(value, what);
  const alpnProtocols = optionalText(given.alpnProtocols, 'tls.alpnProtocols');
  const version = (field: string) =>
    given[field] === undefined ? undefined : oneOf(given[field], ['v1.2', 'v1.3'], `tls.${field}`);
  const [minTlsVersion, maxTlsVersion] = [version('minTlsVersion'), version('maxTlsVersion')];
  return {
    ...(alpnProtocols === undefined ? {} : { alpnProtocols }),
    ...(minTlsVersion === undefined ? {} : { minTlsVersion }),
    ...(maxTlsVersion === undefined ? {} : { maxTlsVersion }),
  };
}

function tokenFieldsFrom(value: unknown): readonly TokenField[] {
  return list(value ?? [], 'tokenFields').map((one) => {
    const { path, names } = object(one, 'a member of tokenFields');
    const fieldPath = text(path, 'its path');
    if (!/^\w+(\.\w+)*$/.test(fieldPath)) fail(`the path ${fieldPath} is not fields with dots between them`);
    return { path: fieldPath, names: oneOf(names, ['account', 'reference', 'agent'], 'names') };
  });
}

/** The functions of an object, for what must be there. */
function functionsOf(value: unknown, what: string, names: readonly string[]): Fields {
  const given = object(value, what);
  const missing = names.filter((name) => typeof given[name] !== 'function');
  return missing.length === 0 ? given : fail(`${what} has no ${missing.map((name) => `${name}()`).join(', ')}`);
}
