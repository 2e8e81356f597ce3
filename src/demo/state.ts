import type { Sink } from '../agent/report/reporter.ts';
import type { PublicationStatus } from '../core/status.ts';

/** What has happened to one mesh so far. */
export interface MeshState {
  readonly mesh: string;
  status: PublicationStatus | undefined;
  /** Leaves that replaced another published one. */
  rotations: number;
  rootRotations: number;
  ok: number;
  failed: number;
  lastFailure: string | undefined;
  /** Published pairs that did not verify under the published bundle. */
  broken: number;
}

export interface DemoEvent {
  readonly at: number;
  readonly mesh: string;
  readonly text: string;
}

/** Everything that the view and the summary show. */
export class DemoState {
  readonly meshes: readonly MeshState[];
  readonly events: DemoEvent[] = [];
  readonly startedAt: number;
  readonly #now: () => number;
  /** Called for each event. */
  onEvent: (event: DemoEvent) => void = () => {};

  constructor(meshes: readonly string[], now: () => number) {
    this.#now = now;
    this.startedAt = now();
    this.meshes = meshes.map((mesh) => ({
      mesh,
      status: undefined,
      rotations: 0,
      rootRotations: 0,
      ok: 0,
      failed: 0,
      lastFailure: undefined,
      broken: 0,
    }));
  }

  of(mesh: string): MeshState {
    const found = this.meshes.find((one) => one.mesh === mesh);
    if (!found) throw new TypeError(`${mesh} is not in the demo`);
    return found;
  }

  event(mesh: string, text: string): void {
    const event = { at: this.#now(), mesh, text };
    this.events.push(event);
    this.onEvent(event);
  }

  answered(mesh: string, problem: string | undefined): void {
    const state = this.of(mesh);
    if (problem === undefined) {
      state.ok++;
      return;
    }
    state.failed++;
    if (state.lastFailure !== problem) this.event(mesh, `request failed: ${problem}`);
    state.lastFailure = problem;
  }

  /** The sink for the agent's reports. */
  get sink(): Sink {
    return {
      status: (status, before, { certificate }) => {
        const state = this.of(certificate.metadata.name);
        const earlier = state.status?.fingerprint;
        state.status = status;
        if (status.fingerprint !== undefined && status.fingerprint !== earlier) {
          if (earlier !== undefined) state.rotations++;
          const what = earlier === undefined ? 'published' : 'rotated to';
          this.event(state.mesh, `${what} leaf ${status.fingerprint.slice(0, 8)}`);
        }
        if (before && before.roots.length !== status.roots.length) {
          this.event(state.mesh, `trusts ${status.roots.length} root${status.roots.length === 1 ? '' : 's'}`);
        }
      },
      trouble: (certificate, error) => this.event(certificate.metadata.name, error.message),
    };
  }

  sum(field: 'rotations' | 'rootRotations' | 'ok' | 'failed' | 'broken'): number {
    return this.meshes.reduce((total, mesh) => total + mesh[field], 0);
  }

  /** The last line of `--json`. A demo in which nothing rotated is not ok, since it showed nothing. */
  summary(): DemoSummary {
    const rotations = this.sum('rotations');
    const failed = this.sum('failed');
    const broken = this.sum('broken');
    const reason = this.#reason(failed, broken, rotations);
    return {
      ok: reason === undefined,
      ...(reason === undefined ? {} : { reason }),
      meshes: this.meshes.map(({ mesh }) => mesh),
      rotations,
      rootRotations: this.sum('rootRotations'),
      requests: this.sum('ok') + failed,
      failed,
      broken,
      seconds: Math.round((this.#now() - this.startedAt) / 100) / 10,
      each: this.meshes.map(({ mesh, rotations: own, rootRotations, ok, failed: bad, lastFailure }) => ({
        mesh,
        rotations: own,
        rootRotations,
        requests: ok + bad,
        failed: bad,
        ...(lastFailure === undefined ? {} : { lastFailure }),
      })),
    };
  }

  #reason(failed: number, broken: number, rotations: number): string | undefined {
    if (broken > 0) return 'a published pair did not verify';
    if (failed > 0) return 'requests failed';
    if (this.sum('ok') === 0) return 'it ended before the first request';
    if (rotations === 0)
      return 'it ended before the first rotation; give --for at least the lifetime of a leaf (--leaf)';
    return undefined;
  }
}

export interface DemoSummary {
  readonly ok: boolean;
  /** Why it is not ok. */
  readonly reason?: string;
  readonly meshes: readonly string[];
  readonly rotations: number;
  readonly rootRotations: number;
  readonly requests: number;
  readonly failed: number;
  readonly broken: number;
  readonly seconds: number;
  readonly each: readonly object[];
}
