import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../async/clock.ts';
import { following, type LatestSource, LatestValue, type ReportStale } from '../async/latest-value.ts';
import { type LinkedSignal, linkedTo, unlessAborted } from '../async/linked-signal.ts';
import { asError } from '../async/retrying.ts';
import type { Share } from '../async/sharing.ts';
import { Trigger } from '../async/trigger.ts';
import { type Allowed, type AllowList, ANY, allowsAudience, requireAllowed } from '../config/allow.ts';
import type { ProbeSpec } from '../config/schema/mesh-certificate.ts';
import type { ProbeOutcome } from '../core/hold.ts';
import type { Problem } from '../core/problem.ts';
import { mintToken, requireHarmless, requireUsable } from '../kube/account-token.ts';
import type { Kube } from '../kube/api.ts';
import { RESOURCES, servedTrustBundles, trustBundleOf, unservedTrustBundle } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import { isBelow } from '../kube/transport/regular-file.ts';
import type { ConfigMapRef, Host, TokenRequest } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import { type Identity, leafOf } from '../mesh/identity.ts';
import { acceptToken } from '../mesh/input.ts';
import type { Log, Runtime } from '../mesh/log.ts';
import { type KubeObject, keyOf, type ObjectRef, type Resource } from '../objects/objects.ts';

import type { Certificate } from '../pki/certificate.ts';
import { type ProbeResult, probe } from '../probe/probe.ts';
import { type FileOptions, type FileTexts, fileContents, fileTexts, readAllowed } from './file-informer.ts';
import type { Informer } from './informers.ts';

/** Tokens of cloud providers with many claims have several kilobytes. */
const LARGEST_TOKEN = 65_536;

type ConfigMapData = Readonly<Record<string, string>> | undefined;

export interface HostOptions extends Runtime {
  readonly kube: Kube;
  readonly namespace: string;
  /** A value that several hosts read is read once for all who have the same one. */
  readonly share: Share;
  readonly sharedInformers: Informer;
  readonly report: (error: Error) => void;
  /**
   * In place of `report` for a source that is followed, such as a ConfigMap or a file: why it may be out of date, and
   * without an error that it is no longer.
   */
  readonly reportStale: (source: string, error: Error | undefined) => void;
  /**
   * Directories below which a MeshCertificate may name files. Without this, a user who may create a resource could have
   * the agent's own token sent to an address of their choice. `ANY` where the MeshCertificates are in a configuration
   * file, which belongs to the operator.
   */
  readonly filesBelow: Allowed;
  /** What tokens may be made for. Where it is `ANY`, the API server's audiences are still refused. */
  readonly allow: AllowList;
}

/** What an adapter of one MeshCertificate may read from the cluster and the file system. */
export function createHost(options: HostOptions): Host {
  return new AdapterHost(options);
}

class AdapterHost implements Host {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly namespace: string;
  readonly share: Share;
  readonly report: (error: Error) => void;
  readonly #options: HostOptions;
  /** The last token of a file that was judged: the proof holds for this very token, and for no other. */
  #harmless: string | undefined;

  constructor(options: HostOptions) {
    this.clock = options.clock;
    this.random = options.random;
    this.log = options.log;
    this.namespace = options.namespace;
    this.share = options.share;
    this.report = options.report;
    this.#options = options;
  }

  async token(request: TokenRequest, signal: AbortSignal): Promise<string> {
    const { audience, serviceAccount: account, file } = request;
    const { kube, allow, filesBelow } = this.#options;
    requireAllowed(request, allow);
    if (file !== undefined) {
      permit(file, filesBelow);
      const token = await tokenFile(file, filesBelow);
      if (filesBelow !== ANY && token !== this.#harmless && !allowsAudience(token, allow)) {
        const judge = () =>
          new Minting(async (stop) => {
            await requireHarmless(kube, `the token in ${file}`, token, undefined, stop);
            return token;
          });
        const digest = createHash('sha256').update(token).digest('base64');
        using held = this.share(`token ${file} ${digest}`, judge);
        this.#harmless = await held.value.token(signal);
      }
      return token;
    }
    if (!account) {
      throw new MeshError('ERR_MESH_CONFIG', 'no token is configured; set serviceAccount or tokenFile', {
        retry: 'never',
      });
    }
    const mint = () =>
      new Minting(async (stop) => {
        await requireUsable(kube, account, this.namespace, stop);
        const token = await minted(kube, account, audience, stop);
        if (!allowsAudience(token, allow))
          await requireHarmless(kube, `a token for audience ${audience}`, token, account, stop);
        return token;
      });
    using held = this.share(`token ${this.namespace} ${account.namespace}/${account.name} ${audience}`, mint);
    return await held.value.token(signal);
  }

  configMap(ref: ConfigMapRef, signal: AbortSignal): AsyncIterable<ConfigMapData> {
    const { sharedInformers } = this.#options;
    const open: LatestSource<ConfigMapData> = (stop, report) => configMap(sharedInformers, ref, report, stop);
    return this.#following(`ConfigMap ${ref.namespace}/${ref.name}`, open, signal);
  }

  clusterTrustBundle(name: string, signal: AbortSignal): AsyncIterable<string | undefined> {
    const { kube, sharedInformers } = this.#options;
    const open: LatestSource<string | undefined> = (stop, report) =>
      clusterTrustBundle(kube, sharedInformers, name, report, stop);
    return this.#following(`ClusterTrustBundle ${name}`, open, signal);
  }

  file(path: string, signal: AbortSignal): AsyncIterable<string | undefined> {
    permit(path, this.#options.filesBelow);
    const open: LatestSource<string | undefined> = (stop, report) => fileContents(path, this.#reading(report), stop);
    return this.#following(`file ${path}`, open, signal);
  }

  files(paths: readonly string[], signal: AbortSignal): AsyncIterable<FileTexts> {
    for (const path of paths) permit(path, this.#options.filesBelow);
    const open: LatestSource<FileTexts> = (stop, report) => fileTexts(paths, this.#reading(report), stop);
    return this.#following(`files ${paths.join(':')}`, open, signal);
  }

  /** Files are read until they can be used; meanwhile `report` is called with the reason. */
  #reading(report: ReportStale): FileOptions {
    return {
      clock: this.clock,
      below: this.#options.filesBelow,
      failed: (path, { message }) => report(unusable(path, message)),
      recovered: () => report(undefined),
      unguarded: (path) =>
        this.log.warn(
          { file: path },
          `every user of this machine may change the file ${path}, and with it the certificate, the key or the roots that the gateway uses; have the program that writes it set its mode to 0600, or 0644 at most`,
        ),
    };
  }

  #following<T>(source: string, open: LatestSource<T>, signal: AbortSignal): AsyncIterable<T> {
    const { reportStale } = this.#options;
    // A failure that an earlier reading of this source reported no longer counts.
    reportStale(source, undefined);
    const join = () => this.share(source, () => new LatestValue(open));
    return following(join, (error) => reportStale(source, error), signal);
  }
}

function permit(path: string, directories: Allowed): void {
  if (directories === ANY || isBelow(path, directories)) return;
  throw new MeshError(
    'ERR_MESH_CONFIG',
    `the file ${path} is not below ${directories.join(' or ')}; a MeshCertificate resource may name no other files: mount it there, start the agent with --files-below, or name a serviceAccount instead`,
    { retry: 'never' },
  );
}

async function minted(
  kube: Kube,
  account: NonNullable<TokenRequest['serviceAccount']>,
  audience: string,
  signal: AbortSignal,
): Promise<string> {
  try {
    return await mintToken(kube, account, audience, signal);
  } catch (cause) {
    const name = `${account.namespace}/${account.name}`;
    if (cause instanceof MeshError) throw cause;
    if (cause instanceof KubeError && cause.status === 403) {
      throw new MeshError(
        'ERR_MESH_TOKEN',
        `the agent may not mint a token for ServiceAccount ${name}; grant it "create" on serviceaccounts/token with resourceNames [${account.name}] in namespace ${account.namespace}`,
        { cause },
      );
    }
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MeshError('ERR_MESH_TOKEN', `no token for ServiceAccount ${name}: ${why}`, { cause });
  }
}

function unusable(path: string, why: string): MeshError {
  return new MeshError('ERR_MESH_CONFIG', `the file ${path} ${why}; mount a regular file there, or name another`);
}

async function tokenFile(path: string, below: Allowed): Promise<string> {
  let text: string;
  try {
    text = await readAllowed(path, LARGEST_TOKEN, below);
  } catch (cause) {
    const why = asError(cause).message;
    throw new MeshError(
      'ERR_MESH_TOKEN',
      `the token file ${path} ${why}; mount a projected service-account token there`,
      { cause },
    );
  }
  return acceptToken(`the token file ${path}`, text);
}

function configMap(
  informers: Informer,
  ref: ConfigMapRef,
  report: ReportStale,
  signal: AbortSignal,
): AsyncGenerator<ConfigMapData> {
  const dataOf = (object: KubeObject | undefined) => object && ((object.data ?? {}) as Record<string, string>);
  return partOf(informers, RESOURCES.configMaps, ref, { read: dataOf, report }, signal);
}

async function* clusterTrustBundle(
  kube: Kube,
  informers: Informer,
  name: string,
  report: ReportStale,
  signal: AbortSignal,
): AsyncGenerator<string | undefined> {
  const resource = await servedTrustBundles(kube, name, signal);
  const unserved = () => unservedTrustBundle(name);
  yield* partOf(informers, resource, { name }, { read: trustBundleOf, report, unserved }, signal);
}

interface Reading<T> {
  read(object: KubeObject | undefined): T;
  readonly report: ReportStale;
  /** Thrown when the API server does not serve the kind, or no longer in this version; absent: it always does. */
  unserved?(): Error;
}

/** A part of one object now, then whenever the part changes. */
async function* partOf<T>(
  informers: Informer,
  resource: Resource,
  ref: Pick<ObjectRef, 'name' | 'namespace'>,
  { read, report, unserved }: Reading<T>,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const changed = new Trigger();
  let gone: Error | undefined;
  const watcher = {
    changed: () => changed.fire(),
    failed(error: Error) {
      if (!unserved || !(error instanceof KubeError) || error.status !== 404) return report(error);
      gone = unserved();
      changed.fire();
    },
    recovered: () => report(undefined),
  };
  using view = informers.view({ resource, namespace: ref.namespace, name: ref.name }, watcher);
  const key = keyOf({ apiVersion: resource.apiVersion, kind: resource.kind, ...ref });
  let last: { readonly part: T } | undefined;
  try {
    for (;;) {
      if (!view.synced) await changed.wait(signal);
      if (gone) throw gone;
      if (!view.synced) continue;
      const part = read(view.get(key));
      const same = last !== undefined && isDeepStrictEqual(part, last.part);
      last = { part };
      if (!same) yield part;
      await changed.wait(signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** One token for all equal requests while it is made or judged; after disposal, no further request receives it. */
class Minting implements Disposable {
  readonly #stop = new AbortController();
  readonly #minted: Promise<string>;

  constructor(mint: (signal: AbortSignal) => Promise<string>) {
    this.#minted = mint(this.#stop.signal);
  }

  /** Rejects with the signal's reason when aborted: the others still wait. */
  token(signal: AbortSignal): Promise<string> {
    return unlessAborted(this.#minted, signal);
  }

  [Symbol.dispose](): void {
    this.#stop.abort(new Error('nobody waits for the token any more'));
  }
}

/** Between two probes of the same held leaf. */
const AGAIN_MS = 5000;

/**
 * Every other result, such as an upstream that is down or is a different server, says nothing about our certificate.
 */
const ANSWERS = { accepted: 'accepted', ERR_PROBE_REFUSED: 'refused' } as const;

interface ProberOptions {
  readonly clock: Clock;
  readonly log: Log;
}

/** Probes a held leaf until the upstream accepts it; one probe at a time. */
export class Prober {
  readonly #env: ProberOptions;
  readonly #probeSpec: ProbeSpec | undefined;
  readonly #changed: () => void;
  #stop: LinkedSignal | undefined;
  #running: Promise<void> | undefined;
  /** The leaf that was probed last, whatever the result. */
  #asked: string | undefined;
  #last: { readonly fingerprint: string; readonly outcome: ProbeOutcome; readonly result: ProbeResult } | undefined;

  constructor(env: ProberOptions, probeSpec: ProbeSpec | undefined, changed: () => void) {
    this.#env = env;
    this.#probeSpec = probeSpec;
    this.#changed = changed;
  }

  /** The upstream's last answer to this identity; a failure to reach the upstream leaves it unchanged. */
  outcome(identity: Identity | undefined): ProbeOutcome {
    return this.#of(identity)?.outcome ?? 'unknown';
  }

  /** Why the last probe of this identity has no answer; undefined if it has one. */
  problem(identity: Identity | undefined): Problem | undefined {
    const { result } = this.#of(identity) ?? {};
    if (!result || result.code in ANSWERS) return undefined;
    return { code: result.code, message: result.message };
  }

  /** Starts a probe unless one is running or none is configured. */
  ask(identity: Identity | undefined, bundle: readonly Certificate[], signal: AbortSignal): void {
    const probeSpec = this.#probeSpec;
    if (!probeSpec || !identity || this.#running || this.outcome(identity) === 'accepted') return;
    const stop = linkedTo(signal);
    this.#stop = stop;
    this.#running = this.#probe(probeSpec, identity, bundle, stop.signal)
      .catch(() => {})
      .finally(() => {
        stop[Symbol.dispose]();
        this.#running = undefined;
        if (!stop.signal.aborted) this.#changed();
      });
  }

  stop(): void {
    this.#stop?.abort(new Error('stopped'));
  }

  async #probe(
    probeSpec: ProbeSpec,
    identity: Identity,
    bundle: readonly Certificate[],
    signal: AbortSignal,
  ): Promise<void> {
    const { fingerprint } = leafOf(identity);
    const again = this.#asked === fingerprint;
    this.#asked = fingerprint;
    if (again) await this.#env.clock.sleep(AGAIN_MS, signal);
    const result = await probe(probeSpec, identity, bundle, { clock: this.#env.clock, signal });
    if (signal.aborted) return;
    const said = ANSWERS[result.code as keyof typeof ANSWERS] ?? this.outcome(identity);
    this.#last = { fingerprint, outcome: said, result };
    this.#env.log.info(
      { code: result.code, upstream: probeSpec.address, leaf: fingerprint.slice(0, 16) },
      result.message,
    );
  }

  #of(identity: Identity | undefined) {
    const leaf = identity?.chain[0];
    return leaf && this.#last?.fingerprint === leaf.fingerprint ? this.#last : undefined;
  }
}
