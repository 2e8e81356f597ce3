import { CallDeadline } from '../../src/async/clock.ts';
import { UnderWay } from '../../src/async/latest-value.ts';
import { asError } from '../../src/async/retrying.ts';
import type { Checking, Expectation, Host, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf, sameIdentity, sameLeaf } from '../../src/mesh/identity.ts';
import { provingRoots, readPair, unprovable } from '../../src/mesh/input.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { parseSpiffeId } from '../../src/pki/names.ts';
import { type FilePaths, pathsOf } from './cluster.ts';
import type { FileConfig } from './config.ts';

/**
 * How long files may fail to belong together. Their writers take milliseconds, a swap that no watch reported is found
 * within ten seconds.
 */
const SETTLE_MS = 15_000;
/** Programs renew at half of a leaf's life, or at two thirds of it; a kubelet may be a minute late. */
const RENEWED_BY = 0.75;

/** Identities from files. A pair that does not match, or does not prove itself under the bundle, is never yielded. */
export class FileSource implements Source, Checking {
  /** Files are watched to the end: to open them again brings nothing new. */
  readonly overdue = 1;
  readonly #config: FileConfig;
  readonly #paths: FilePaths;
  readonly #host: Host;
  readonly #underWay = new UnderWay();

  constructor(config: FileConfig, host: Host) {
    this.#config = config;
    this.#paths = pathsOf(config);
    this.#host = host;
  }

  async *watch(caller: AbortSignal): AsyncGenerator<Identity, void, undefined> {
    const { clock } = this.#host;
    using work = this.#underWay.begin(caller);
    let unsettled: Error | undefined;
    const settling = new CallDeadline(clock, () => work.abort(unsettled));
    const aging = new CallDeadline(clock, (reason) => this.#host.report(new MeshError('ERR_MESH_SILENT', reason)));
    let reported: Identity | undefined;
    try {
      for await (const contents of this.#contents(work.signal)) {
        const absent = missing(this.#paths, contents);
        if (absent) throw absent;
        const read = this.#read(contents, reported);
        if (read instanceof Error) {
          if (!unsettled) settling.set(SETTLE_MS, read.message);
          unsettled = read;
          continue;
        }
        unsettled = undefined;
        settling.clear();
        if (sameIdentity(reported, read)) continue;
        const isNewLeaf = !sameLeaf(read, reported);
        reported = read;
        yield read;
        if (isNewLeaf) aging.set(...this.#stale(read));
      }
      work.signal.throwIfAborted();
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#where} are no longer followed; meshcert opens them again`);
    } finally {
      settling.clear();
      aging.clear();
    }
  }

  async check(examiner: Examiner): Promise<void> {
    if (!examiner.here) {
      examiner.skip('file-read', `${this.#where} are in the agent's pod; run meshcert doctor there`);
      return;
    }
    await examiner.look(
      'file-read',
      (signal) => this.#readNow(signal),
      (identity) => {
        const { notAfter, issuer } = leafOf(identity);
        const roots = `${identity.roots.length} root${identity.roots.length === 1 ? '' : 's'}`;
        return `${this.#where} hold ${identity.id} until ${iso(notAfter)}, by "${issuer}", under ${roots}`;
      },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#underWay.end(new Error('the source is disposed of'));
  }

  get #where(): string {
    const { certificate, key, bundle } = this.#paths;
    return `the files ${[...new Set([certificate, key, bundle])].join(', ')}`;
  }

  async *#contents(signal: AbortSignal): AsyncGenerator<FileContents> {
    const { certificate, key, bundle } = this.#paths;
    for await (const [first, second, third] of this.#host.files([certificate, key, bundle], signal)) {
      yield { certificate: first, key: second, bundle: third };
    }
  }

  #read(contents: FileContents, before: Identity | undefined): Identity | Error {
    try {
      return readIdentity(this.#paths, contents, expectation(this.#config), this.#host.clock.now(), before);
    } catch (error) {
      return asError(error);
    }
  }

  async #readNow(signal: AbortSignal): Promise<Identity> {
    for await (const contents of this.#contents(signal)) {
      const found = missing(this.#paths, contents) ?? this.#read(contents, undefined);
      if (found instanceof Error) throw found;
      return found;
    }
    throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#where} could not be read`);
  }

  /** From now until the leaf should have been replaced, and what to say then. */
  #stale(identity: Identity): [number, string] {
    const { notBefore, notAfter } = leafOf(identity);
    const due = notBefore + (notAfter - notBefore) * RENEWED_BY;
    return [
      Math.max(0, due - this.#host.clock.now()),
      `${this.#where} still hold a certificate that is past three quarters of its life and ends at ${iso(notAfter)}; does the program run that renews them?`,
    ];
  }
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** What stood in the files at one moment; `undefined` for one that does not exist. */
type FileContents = { readonly [name in keyof FilePaths]: string | undefined };

export function expectation({ id, trustDomain }: FileConfig): Expectation {
  const spiffe = id === undefined ? undefined : parseSpiffeId(id);
  const domain = trustDomain ?? spiffe?.trustDomain;
  return {
    form: id !== undefined && !spiffe ? 'dns' : 'spiffe',
    ...(id === undefined ? {} : { id }),
    ...(domain === undefined ? {} : { trustDomain: domain }),
  };
}

function missing(paths: FilePaths, contents: FileContents): MeshError | undefined {
  const names = ['certificate', 'key', 'bundle'] as const;
  const absent = new Set(names.filter((name) => contents[name] === undefined).map((name) => paths[name]));
  if (absent.size === 0) return undefined;
  const what = absent.size === 1 ? `the file ${[...absent]} does` : `the files ${[...absent].join(', ')} do`;
  return new MeshError(
    'ERR_MESH_UNAVAILABLE',
    `${what} not exist or cannot be read; is the volume mounted here, and does the program run that writes into it?`,
  );
}

/** Throws a MeshError when the contents do not belong together, or are of no use. `before` is what was read last. */
function readIdentity(
  paths: FilePaths,
  contents: FileContents,
  expectation: Expectation,
  now: number,
  before: Identity | undefined,
): Identity {
  const known = before ? [...before.chain, ...before.roots] : [];
  const certificates = certificatesOf(paths.certificate, contents.certificate, known);
  const key = keyOf(paths.key, contents.key);
  const from = `the files ${[...new Set([paths.certificate, paths.key])].join(' and ')}`;
  const pair = readPair(from, key, certificates, expectation, now);
  const named = certificatesOf(paths.bundle, contents.bundle, known);
  const roots = provingRoots(pair, named, before?.roots ?? [], now);
  if (!roots) throw unprovable(`the files ${paths.certificate} and ${paths.bundle}`, pair);
  return { ...pair, roots };
}

function certificatesOf(path: string, text: string | undefined, known: readonly Certificate[]): Certificate[] {
  try {
    return parseCertificates(text ?? '', { known });
  } catch (cause) {
    throw bad(`the file ${path} has no certificates that can be read`, cause);
  }
}

function keyOf(path: string, text: string | undefined): PrivateKey {
  try {
    return PrivateKey.fromPem(text ?? '');
  } catch (cause) {
    throw bad(`the file ${path} has no private key that can be read`, cause);
  }
}

function bad(what: string, cause: unknown): MeshError {
  return new MeshError('ERR_MESH_BAD_RESPONSE', `${what}; see the logs of the program that writes it`, { cause });
}
