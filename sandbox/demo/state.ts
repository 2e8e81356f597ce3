import type { Sink } from '../../src/agent/reporter.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { formatDuration } from '../../src/mesh/schema.ts';
import { GATEWAY_TITLES, type GatewayTitle } from '../cluster/mesh.ts';

/** Requests by one gateway. */
interface Answers {
  ok: number;
  failed: number;
}

const answersByGateway = () =>
  Object.fromEntries(GATEWAY_TITLES.map((gateway) => [gateway, { ok: 0, failed: 0 }])) as Record<GatewayTitle, Answers>;

/** What has happened to one mesh so far. */
export interface MeshState {
  readonly mesh: string;
  status: PublicationStatus | undefined;
  /** Leaves that replaced another published one. */
  rotations: number;
  rootRotations: number;
  readonly by: Readonly<Record<GatewayTitle, Answers>>;
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
  /** What is not counted, because this process did not run. */
  readonly standstill = { ms: 0, requests: 0, pairs: 0 };
  readonly #now: () => number;
  /** Failures that have had an event since this process last stood still for long. */
  readonly #reported = new Set<string>();
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
      by: answersByGateway(),
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

  answered(mesh: string, gateway: GatewayTitle, problem: string | undefined): void {
    const state = this.of(mesh);
    const answers = state.by[gateway];
    if (problem === undefined) {
      answers.ok++;
      return;
    }
    answers.failed++;
    if (state.lastFailure !== problem) this.event(mesh, `request by ${gateway} failed: ${problem}`);
    state.lastFailure = problem;
  }

  /** A request failed because this process did not run. */
  interrupted(mesh: string, gateway: GatewayTitle, problem: string): void {
    this.standstill.requests++;
    this.#eventOnce(mesh, `request by ${gateway} failed, because this process did not run: ${problem}`);
  }

  /** A published leaf ended because this process did not run. */
  endedUnrenewed(mesh: string): void {
    this.standstill.pairs++;
    this.#eventOnce(mesh, 'the published leaf ended, because this process did not run');
  }

  #eventOnce(mesh: string, text: string): void {
    if (this.#reported.has(`${mesh} ${text}`)) return;
    this.#reported.add(`${mesh} ${text}`);
    this.event(mesh, text);
  }

  /** This process did not run for so long that leaves may have ended. */
  stood(ms: number, leafLifetimeMs: number): void {
    this.#reported.clear();
    this.event(
      'demo',
      `this process did not run for ${tenths(ms)}s; leaves live for ${formatDuration(leafLifetimeMs)}`,
    );
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
      failure: (certificate, { message }) => this.event(certificate.metadata.name, message),
    };
  }

  sum(field: 'rotations' | 'rootRotations' | 'broken'): number {
    return this.meshes.reduce((total, mesh) => total + mesh[field], 0);
  }

  /** Requests of all meshes by one gateway, or by all. */
  requests(field: keyof Answers, gateways: readonly GatewayTitle[] = GATEWAY_TITLES): number {
    return this.meshes.reduce((total, { by }) => total + gateways.reduce((sum, one) => sum + by[one][field], 0), 0);
  }

  /** The last line of `--json`. A demo in which nothing rotated is not ok, since it showed nothing. */
  summary(): DemoSummary {
    const rotations = this.sum('rotations');
    const failed = this.requests('failed');
    const broken = this.sum('broken');
    const reason = this.#reason(failed, broken, rotations);
    return {
      ok: reason === undefined,
      ...(reason === undefined ? {} : { reason }),
      meshes: this.meshes.map(({ mesh }) => mesh),
      rotations,
      rootRotations: this.sum('rootRotations'),
      requests: this.requests('ok') + failed,
      failed,
      gateways: GATEWAY_TITLES.map((gateway) => ({
        gateway,
        requests: this.requests('ok', [gateway]) + this.requests('failed', [gateway]),
        failed: this.requests('failed', [gateway]),
      })),
      broken,
      standstill: {
        seconds: tenths(this.standstill.ms),
        requests: this.standstill.requests,
        pairs: this.standstill.pairs,
      },
      seconds: tenths(this.#now() - this.startedAt),
      each: this.meshes.map(({ mesh, rotations: own, rootRotations, by, lastFailure }) => ({
        mesh,
        rotations: own,
        rootRotations,
        requests: GATEWAY_TITLES.reduce((total, one) => total + by[one].ok + by[one].failed, 0),
        failed: GATEWAY_TITLES.reduce((total, one) => total + by[one].failed, 0),
        ...(lastFailure === undefined ? {} : { lastFailure }),
      })),
    };
  }

  #reason(failed: number, broken: number, rotations: number): string | undefined {
    if (broken > 0) return 'a published pair did not verify';
    if (failed > 0) return 'requests failed';
    const [silent] = GATEWAY_TITLES.filter((gateway) => this.requests('ok', [gateway]) === 0);
    if (silent) return `it ended before the first request by ${silent}`;
    if (rotations === 0)
      return 'it ended before the first rotation; give --for at least the lifetime of a leaf (--leaf)';
    return undefined;
  }
}

const tenths = (ms: number): number => Math.round(ms / 100) / 10;

export interface DemoSummary {
  readonly ok: boolean;
  /** Why it is not ok. */
  readonly reason?: string;
  readonly meshes: readonly string[];
  readonly rotations: number;
  readonly rootRotations: number;
  readonly requests: number;
  readonly failed: number;
  readonly gateways: readonly { readonly gateway: GatewayTitle; readonly requests: number; readonly failed: number }[];
  readonly broken: number;
  /** How long this process did not run, and the failures for that reason, which are not counted elsewhere. */
  readonly standstill: { readonly seconds: number; readonly requests: number; readonly pairs: number };
  readonly seconds: number;
  readonly each: readonly object[];
}
