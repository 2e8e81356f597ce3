import { isDeepStrictEqual } from 'node:util';
import { asError } from '../async/retrying.ts';
import { API_VERSION, KIND, type MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { describe, keyOf, refOf } from '../objects/objects.ts';
import { type Environment, Reconciler } from './reconciler.ts';

import type { GatewaysInUse } from './retire.ts';

interface RunningReconciler {
  readonly adapter: Adapter;
  certificate: MeshCertificate;
  /** The gateways of the spec before. */
  readonly inUse: GatewaysInUse | undefined;
  /** Replaced at each restart. */
  reconciler: Reconciler | undefined;
  /** Ends the current run, or the pause before the next one. */
  stop: AbortController;
  isStopped: boolean;
  done: Promise<void> | undefined;
}

/** The reconcilers, one for each accepted MeshCertificate. */
export class Reconcilers {
  readonly #adapters: ReadonlyMap<string, Adapter>;
  readonly #env: Environment;
  readonly #running = new Map<string, RunningReconciler>();
  #closing = false;

  constructor(adapters: readonly Adapter[], env: Environment) {
    this.#adapters = new Map(adapters.map((adapter) => [adapter.mesh, adapter]));
    this.#env = env;
  }

  /** Starts, restarts and stops reconcilers so that exactly these run; one with an unchanged spec continues. */
  async reconcile(desired: readonly MeshCertificate[]): Promise<void> {
    const keys = new Set(desired.map((certificate) => keyOf(refOf(certificate))));
    const gone = [...this.#running.keys()].filter((key) => !keys.has(key));
    await Promise.all(gone.map((key) => this.#stop(key)));
    // Usually one in a thousand differs, mostly in its status.
    const changed = desired.filter((one) => this.#running.get(keyOf(refOf(one)))?.certificate !== one);
    await Promise.all(changed.map((certificate) => this.#ensure(certificate)));
  }

  /** The reconciler of one MeshCertificate, for `renew`. */
  find(namespace: string, name: string): Reconciler | undefined {
    return this.#running.get(keyOf({ apiVersion: API_VERSION, kind: KIND, namespace, name }))?.reconciler;
  }

  /** Triggers every reconciler. */
  poke(): void {
    for (const { reconciler } of this.#running.values()) reconciler?.poke();
  }

  get size(): number {
    return this.#running.size;
  }

  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all([...this.#running.keys()].map((key) => this.#stop(key)));
  }

  async #ensure(certificate: MeshCertificate): Promise<void> {
    if (this.#closing) return;
    const key = keyOf(refOf(certificate));
    const before = this.#running.get(key);
    if (before && isSameSpec(before.certificate, certificate)) {
      before.certificate = certificate;
      before.reconciler?.update(certificate);
      return;
    }
    // What an earlier resource of the same name left is not this one's to delete.
    const isSame = before?.certificate.metadata.uid === certificate.metadata.uid;
    const inUse = isSame ? before?.reconciler?.inUse : undefined;
    if (before) await this.#stop(key);
    const adapter = this.#adapters.get(certificate.spec.mesh.name);
    if (!adapter) throw new TypeError(`no adapter for mesh ${certificate.spec.mesh.name}`);
    const stop = new AbortController();
    const running: RunningReconciler = {
      adapter,
      certificate,
      stop,
      inUse,
      reconciler: undefined,
      isStopped: false,
      done: undefined,
    };
    this.#running.set(key, running);
    running.done = this.#supervise(running);
  }

  /**
   * A reconciler that throws has a bug. The others must not end with it, so the error is reported and the reconciler
   * restarted.
   */
  async #supervise(running: RunningReconciler): Promise<void> {
    while (!running.isStopped) {
      try {
        running.reconciler = new Reconciler(running.certificate, running.adapter, this.#env, running.inUse);
        await running.reconciler.run(running.stop);
      } catch (error) {
        if (!running.isStopped) await this.#pause(running, asError(error));
      }
    }
  }

  async #pause(running: RunningReconciler, err: Error): Promise<void> {
    const { certificate } = running;
    this.#env.log.error({ err, certificate: describe(refOf(certificate)) }, 'a reconciler failed and restarts');
    this.#env.reporter.failed(certificate, err);
    running.stop = new AbortController();
    await this.#env.clock.sleep(RESTART_MS, running.stop.signal).catch(() => {});
  }

  async #stop(key: string): Promise<void> {
    const running = this.#running.get(key);
    if (!running) return;
    running.isStopped = true;
    running.stop.abort(new Error('removed'));
    await running.done;
    this.#running.delete(key);
    this.#env.reporter.forget(running.certificate);
  }
}

/** Also compares the metadata that a reconciler cannot change without a restart: its uid and its labels. */
function isSameSpec(one: MeshCertificate, other: MeshCertificate): boolean {
  const { spec, metadata } = one;
  return (
    (spec === other.spec || isDeepStrictEqual(spec, other.spec)) &&
    metadata.uid === other.metadata.uid &&
    isDeepStrictEqual(metadata.labels, other.metadata.labels)
  );
}

/** Long enough that a bug in one reconciler costs little, short enough to recover soon. */
const RESTART_MS = 5000;
