import type { Clock } from '../async/clock.ts';
import { Trigger } from '../async/trigger.ts';
import { type Allowed, type AllowList, ANY, allowing } from '../config/allow.ts';
import { type DocumentError, formatDocumentError, LARGEST_FILE, parseDocuments } from '../config/documents.ts';
import type { GatewayFields, MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { type Conflict, conflicts, formatPath, type Validation, validator } from '../config/validate.ts';
import { type Problem, reasonOf } from '../core/problem.ts';
import { retryDelay } from '../core/retry.ts';
import { reportedStatus, setConditions } from '../core/status.ts';
import type { Kube } from '../kube/api.ts';
import { reflect } from '../kube/reflector.ts';
import { RESOURCES } from '../kube/resources.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { codeOf } from '../mesh/error.ts';
import type { Runtime } from '../mesh/log.ts';
import { safeMessage } from '../mesh/secrets.ts';
import { FIELD_MANAGER, type KubeObject, keyOf, refOf, withoutManagers } from '../objects/objects.ts';
import type { Leadership } from './election.ts';
import { fileContents } from './file-informer.ts';
import { FINALIZER, isDeleting } from './retire.ts';

export interface ControllerOptions extends Runtime {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly GatewayFields[];
  /** What MeshCertificates may make the agent do. */
  readonly allow: AllowList;
  readonly namespaces: Allowed;
  readonly leadership: Pick<Leadership, 'leads' | 'onChange'>;
  readonly onError: (error: Error) => void;
}

/**
 * The cost of `take` grows with their number, and each status write triggers a call. With this pause before a call, all
 * calls together take about 5 % of the time.
 */
const MANY = 100;
const PAUSE_EACH_MS = 0.1;
const LONGEST_PAUSE_MS = 1_000;

/**
 * The MeshCertificates of the cluster now and at each change. An invalid one keeps the last valid version of its name,
 * and its status says what is wrong.
 */
export async function* customResources(
  options: ControllerOptions,
  signal: AbortSignal,
): AsyncGenerator<readonly MeshCertificate[]> {
  const inner = new AbortController();
  const changed = new Trigger();
  const stop = AbortSignal.any([signal, inner.signal]);
  const scopes = options.namespaces === ANY ? [undefined] : options.namespaces;
  const reflectors = scopes.map((namespace) =>
    reflect(options.kube, RESOURCES.meshCertificates, namespace === undefined ? {} : { namespace }, {
      clock: options.clock,
      random: options.random,
      log: options.log,
      signal: stop,
      keep: withoutManagers,
      onError: options.onError,
    }),
  );
  const pumps = reflectors.map(async (reflector) => {
    for await (const _ of reflector.changes()) changed.fire();
  });
  const gathering = new AcceptedCertificates(
    allowing(validator(options.adapters, options.gateways), options.adapters, options.allow),
    options.gateways,
  );
  const { kube, clock, random, log, leadership, adapters } = options;
  const refusals = new Refusals({
    kube,
    clock,
    random,
    log,
    meshes: adapters.map(({ mesh }) => mesh),
    leads: (key) => leadership.leads(key),
    onRetry: () => changed.fire(),
  });
  // A refusal that was known before this process led is written once it leads.
  leadership.onChange(() => changed.fire());
  try {
    while (!signal.aborted) {
      await changed.wait(stop);
      const count = reflectors.reduce((sum, reflector) => sum + reflector.items().size, 0);
      if (count >= MANY) await options.clock.sleep(Math.min(LONGEST_PAUSE_MS, count * PAUSE_EACH_MS), stop);
      if (!reflectors.every((reflector) => reflector.isSynced)) continue;
      const items = reflectors.map((reflector) => reflector.items());
      const refused = new Map<string, Refusal>();
      const accepted = gathering.take(items, (object, problem, reconciled) => {
        refused.set(keyOf(refOf(object)), { object, problem, reconciled });
      });
      refusals.report(refused, stop);
      yield accepted;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    inner.abort(new Error('no longer watched'));
    await Promise.allSettled(pumps);
  }
}

/** A configuration that cannot be used; the message has one line for each mistake. */
class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code = 'ERR_CONFIG';
  readonly errors: readonly DocumentError[];

  constructor(errors: readonly DocumentError[]) {
    super(errors.map(formatDocumentError).join('\n'));
    this.errors = errors;
  }
}

interface ConfigFileOptions {
  readonly path: string;
  /** What an omitted `metadata.namespace` means. */
  readonly namespace: string;
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly GatewayFields[];
  readonly clock: Clock;
}

type ConfigFileState =
  | { readonly ok: true; readonly documents: readonly MeshCertificate[] }
  /** The previous configuration stays in effect. */
  | {
      readonly ok: false;
      readonly error: ConfigError /** The file does not exist, or cannot be read. */;
      readonly isUnreadable?: boolean;
    };

const ABSENT = 'does not exist';

/** The MeshCertificates of a file now and at each change of it. A file with any mistake changes nothing. */
export async function* configFile(options: ConfigFileOptions, signal: AbortSignal): AsyncGenerator<ConfigFileState> {
  const { path, namespace, adapters, gateways, clock } = options;
  let why = ABSENT;
  const failed = (_: string, { message }: Error) => {
    why = message;
  };
  for await (const text of fileContents(path, { clock, below: ANY, failed, most: LARGEST_FILE }, signal)) {
    if (text === undefined) {
      const message = `${why}; check the path and the mounted ConfigMap`;
      why = ABSENT;
      yield { ok: false, isUnreadable: true, error: new ConfigError([{ file: path, line: 1, path: '', message }]) };
      continue;
    }
    const { documents, errors } = parseDocuments(text, path, adapters, gateways, { namespace });
    if (errors.length > 0) {
      yield { ok: false, error: new ConfigError(errors) };
    } else if (documents.length === 0) {
      const message = 'holds no MeshCertificate; add at least one document';
      yield { ok: false, error: new ConfigError([{ file: path, line: 1, path: '', message }]) };
    } else {
      yield { ok: true, documents };
    }
  }
}

interface Known {
  readonly object: KubeObject;
  /** Equal prints are equally valid. */
  readonly print: string;
  /** What is wrong with the object. */
  readonly problem: Problem | undefined;
  /** The object, or its last valid version. */
  readonly value: MeshCertificate | undefined;
}

/**
 * Turns custom resources into accepted MeshCertificates, again and again. Of a thousand, a handful change at a time,
 * mostly in their status: an unchanged spec is not validated again, and keeps its reference.
 */
export class AcceptedCertificates {
  readonly #validate: (object: unknown) => Validation;
  readonly #gateways: readonly GatewayFields[];
  readonly #known = new Map<string, Known>();
  /** The accepted ones, by key. */
  #inForce: ReadonlyMap<string, MeshCertificate> = new Map();
  #conflicts: readonly Conflict[] = [];
  /** What was returned for a refused one, so that an unchanged one keeps its reference. */
  readonly #refused = new Map<string, { value: MeshCertificate; problem: Problem; now: MeshCertificate }>();

  constructor(validate: (object: unknown) => Validation, gateways: readonly GatewayFields[]) {
    this.#validate = validate;
    this.#gateways = gateways;
  }

  /**
   * `invalid` is called for each object whose current version is not accepted, at each call. `reconciled`: its last valid
   * version is among the result, with the problem in `refused`.
   */
  take(
    scopes: readonly ReadonlyMap<string, KubeObject>[],
    invalid: (object: KubeObject, problem: Problem, reconciled: boolean) => void,
  ): readonly MeshCertificate[] {
    let moved = false;
    let present = 0;
    for (const scope of scopes) {
      present += scope.size;
      for (const [key, object] of scope) {
        const known = this.#known.get(key);
        if (known?.object === object) continue;
        const next = this.#look(object, known);
        moved ||= next.value?.spec !== known?.value?.spec;
        this.#known.set(key, next);
      }
    }
    if (present < this.#known.size) {
      moved = true;
      for (const key of this.#known.keys())
        if (!scopes.some((scope) => scope.has(key))) {
          this.#known.delete(key);
          this.#refused.delete(key);
        }
    }
    if (moved) this.#arrange();
    const refused = new Map<string, Problem>();
    const tell = (object: KubeObject, { code, message }: Problem) => {
      const key = keyOf(refOf(object));
      const problem = { code, message: message + deletionOf(object) };
      refused.set(key, problem);
      invalid(object, problem, this.#inForce.has(key));
    };
    for (const { object, problem } of this.#known.values()) if (problem !== undefined) tell(object, problem);
    for (const { later, path, message } of this.#conflicts) {
      tell(later, { code: 'ERR_CONFIG', message: safeMessage(`${formatPath(path)}: ${message}`) });
    }
    return [...this.#inForce].map(([key, accepted]) => this.#now(key, accepted, refused.get(key)));
  }

  #look(object: KubeObject, known: Known | undefined): Known {
    const { uid, generation, labels, annotations, finalizers, deletionTimestamp } = object.metadata;
    const print = JSON.stringify([uid, generation, labels, annotations, finalizers, deletionTimestamp]);
    if (known && generation !== undefined && known.print === print) {
      const { problem, value } = known;
      const { metadata, status } = object as unknown as MeshCertificate;
      return {
        object,
        print,
        problem,
        value: value && (problem ? { ...value, status } : { ...value, metadata, status }),
      };
    }
    const result = this.#validate(object);
    if (!result.ok) {
      const why = result.issues.map(({ path, message }) => `${formatPath(path)}: ${message}`).join('; ');
      const message = safeMessage(`the spec is refused, and the last valid spec stays in use: ${why}`);
      const problem = { code: result.code ?? 'ERR_CONFIG', message };
      const { status } = object as unknown as MeshCertificate;
      const value = known?.value && { ...known.value, status };
      return { object, print, problem, value };
    }
    // The same spec under another annotation keeps its place and its reconciler.
    const same = known?.value?.metadata.generation === generation && known?.value?.metadata.uid === uid;
    const spec = same && generation !== undefined && known?.value ? known.value.spec : result.value.spec;
    const { metadata } = object as unknown as MeshCertificate;
    return { object, print, problem: undefined, value: { ...result.value, metadata, spec } };
  }

  #arrange(): void {
    const ordered = [...this.#known].flatMap(([key, { value }]) => (value ? [{ key, value, age: ageOf(value) }] : []));
    // Accepted resources have priority for their names over new or edited ones: their objects are published and must be
    // renewed.
    const rank = ({ key, value }: (typeof ordered)[number]) => (this.#inForce.get(key)?.spec === value.spec ? 0 : 1);
    ordered.sort((a, b) => rank(a) - rank(b) || (a.age < b.age ? -1 : 1));
    this.#conflicts = conflicts(
      ordered.map(({ value }) => value),
      this.#gateways,
    );
    const refused = new Set(this.#conflicts.map(({ later }) => later));
    // A resource that is edited into a conflict keeps its previous version, unless another resource has those names
    // now.
    const remaining = ordered.flatMap(({ key, value }) => {
      if (!refused.has(value)) return [{ key, value }];
      const before = this.#inForce.get(key);
      return before && before.metadata.uid === value.metadata.uid ? [{ key, value: before }] : [];
    });
    const lost = new Set(
      conflicts(
        remaining.map(({ value }) => value),
        this.#gateways,
      ).map(({ later }) => later),
    );
    this.#inForce = new Map(remaining.filter(({ value }) => !lost.has(value)).map(({ key, value }) => [key, value]));
  }

  /** The accepted spec, under the newest metadata and status, and why a newer spec is refused. */
  #now(key: string, accepted: MeshCertificate, problem: Problem | undefined): MeshCertificate {
    const known = this.#known.get(key);
    const value = known?.value ?? accepted;
    if (!problem) return value.spec === accepted.spec ? value : { ...value, spec: accepted.spec };
    const { generation } = known?.object.metadata ?? {};
    const before = this.#refused.get(key);
    const isSame = before?.value === value && before.problem.message === problem.message;
    const now = isSame ? before.now : { ...value, spec: accepted.spec, refused: { ...problem, generation } };
    this.#refused.set(key, { value, problem, now });
    return now;
  }
}

/** No reconciler runs for a refused resource, so nothing removes what its deletion waits for. */
function deletionOf(object: KubeObject): string {
  if (!isDeleting(object)) return '';
  return `; it is being deleted, and deletion waits for a valid spec: fix the spec, or remove the finalizer ${FINALIZER} and its objects by hand`;
}

/** Of those that come at the same time, the older has priority for a contested name. */
const ageOf = (one: MeshCertificate): string => `${one.metadata.creationTimestamp ?? ''} ${keyOf(refOf(one))}`;

interface Refusal {
  readonly object: KubeObject;
  readonly problem: Problem;
  /** Its last valid version has a reconciler, which writes its status. */
  readonly reconciled: boolean;
}

interface Reported {
  /** Of this object, at this generation, for this reason. */
  readonly text: string;
  written: boolean;
}

interface RefusalsOptions extends Runtime {
  readonly kube: Kube;
  /** The names of all meshes. */
  readonly meshes: readonly string[];
  /** Whether this process writes statuses of this object. */
  readonly leads: (key: string) => boolean;
  /** Called when `report` is to be called again. */
  readonly onRetry: () => void;
}

/** Logs each refused MeshCertificate once, and writes the status of those that have no reconciler. */
class Refusals {
  readonly #options: RefusalsOptions;
  #reported = new Map<string, Reported>();
  #failures = 0;

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** Takes all refusals that hold now, by key. */
  report(refusals: ReadonlyMap<string, Refusal>, signal: AbortSignal): void {
    const { leads, log } = this.#options;
    const before = this.#reported;
    this.#reported = new Map();
    for (const [key, refusal] of refusals) {
      const { object, problem } = refusal;
      const text = `${object.metadata.uid} ${object.metadata.generation} ${problem.message}`;
      const known = before.get(key);
      const reported = known?.text === text ? known : { text, written: false };
      this.#reported.set(key, reported);
      if (reported !== known) log.error({ certificate: key, code: problem.code }, problem.message);
      const mayWrite = !refusal.reconciled && leads(key);
      if (mayWrite && !reported.written) void this.#write(key, refusal, reported, signal);
      // Another writer's status, or that of a reconciler, may follow.
      reported.written = mayWrite;
    }
  }

  async #write(key: string, { object, problem }: Refusal, reported: Reported, signal: AbortSignal): Promise<void> {
    const { kube, clock, random, log, onRetry } = this.#options;
    const { name, namespace } = object.metadata;
    const target = {
      apiVersion: object.apiVersion,
      kind: object.kind,
      metadata: { name, ...(namespace ? { namespace } : {}) },
    };
    const status = this.#statusOf(object, problem);
    try {
      await kube.apply(
        { ...target, status },
        { fieldManager: FIELD_MANAGER, force: true, subresource: 'status' },
        signal,
      );
      this.#failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      reported.written = false;
      const fields = { certificate: key, code: codeOf(error, 'ERR_UNKNOWN') };
      const why = error instanceof Error ? error.message : String(error);
      log.warn(fields, `could not write the status of an invalid MeshCertificate: ${why}`);
      this.#failures += 1;
      clock.sleep(retryDelay(this.#failures, random), signal).then(onRetry, () => {});
    }
  }

  #statusOf(object: KubeObject, { code, message }: Problem): object {
    const before = reportedStatus(object.status);
    const { generation } = object.metadata;
    const judged = generation === undefined ? {} : { observedGeneration: generation };
    const degraded = {
      type: 'Degraded' as const,
      status: 'True' as const,
      reason: reasonOf(code),
      ...judged,
      message: `${code}: ${message}`,
    };
    const ready = {
      type: 'Ready' as const,
      status: 'False' as const,
      reason: 'NotPublished',
      ...judged,
      message: 'No spec of this MeshCertificate was accepted yet; see Degraded.',
    };
    const stalled = { ...degraded, type: 'Stalled' as const };
    const others = (before?.conditions ?? []).filter(({ type }) => type !== 'Reconciling');
    const now = this.#options.clock.now();
    const conditions = setConditions(others, before ? [degraded, stalled] : [ready, degraded, stalled], now);
    const named = Object.keys((object.spec ?? {}) as object);
    const mesh = this.#options.meshes.find((one) => named.includes(one)) ?? '';
    return { mesh, roots: [], mappings: [], targets: [], rotations: 0, ...before, ...judged, conditions };
  }
}
