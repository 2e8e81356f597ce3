import {
  type ClusterConfig,
  type Configuration,
  configure,
  EMPTY,
  reconfigure,
  snapshotOf,
} from '../../sandbox/emissary/configuration.ts';
import { DEFAULT_ENV, type EmissaryEnv, findGateways, type PodFiles } from '../../src/gateway/emissary/reading.ts';

import { type KubeObject, keyOf, refOf } from '../../src/objects/objects.ts';
import { freePorts } from '../peers/servers/loopback.ts';

/** A gateway by Emissary's rules, without an API server: objects in, requests through. */
export interface Judge extends AsyncDisposable {
  /** Starts the gateway with these objects, without any earlier state. Resolves as `change` does. */
  start(objects: readonly KubeObject[], pod?: PodFiles): Promise<string | undefined>;
  /**
   * One batch, after which these objects exist. Resolves with the reason if it is refused: then nothing has changed.
   */
  change(objects: readonly KubeObject[], pod?: PodFiles): Promise<string | undefined>;
  /** The target of the ports of all services except 443, which nothing serves; from the next connection on. */
  aim(port: number): void;
  /**
   * How an upstream of `startUpstream` saw a request on this path: the name on the client's certificate, `anonymous`
   * for TLS without one, `plaintext`. Or `refused` if no upstream answered; `absent` if there is no route.
   */
  request(path?: string): Promise<string>;
}

/** What carries the requests: Envoy, or the sandbox's gateway. */
export interface DataPlane extends AsyncDisposable {
  clear(): Promise<void>;
  /**
   * Replaces all clusters by these; resolves with the reason if they are refused. `start` counts the starts; `pod` has
   * its current files, whatever a cluster that stays read of them before.
   */
  take(clusters: Configuration, start: number, pod: PodFiles): Promise<string | undefined>;
  /** On a new connection. */
  send(cluster: string, path: string): Promise<{ readonly status: number; readonly body: string }>;
}

/** The default port of a Mapping with TLS; no service here uses it. */
const NOT_SERVED = 443;

export class Aim {
  target = 0;
  readonly #closed: number;

  private constructor(closed: number) {
    this.#closed = closed;
    this.target = closed;
  }

  static async create(): Promise<Aim> {
    return new Aim((await freePorts('closed')).closed);
  }

  /** The port of a cluster's endpoint, when all services are at `open`. */
  portOf({ port }: ClusterConfig, open = this.target): number {
    return port === NOT_SERVED ? this.#closed : open;
  }
}

export function judgeOn(plane: DataPlane, aim: Aim): Judge {
  let starts = 0;
  let inForce: Configuration = EMPTY;
  let standing: ReadonlyMap<string, string> = new Map();

  const change: Judge['change'] = async (objects, pod = { files: new Map() }) => {
    const env: EmissaryEnv = { ...DEFAULT_ENV, ...findGateways(objects)[0]?.env };
    const before = standing;
    standing = new Map(objects.map((object) => [keyOf(refOf(object)), JSON.stringify(object)]));
    const changed = [...new Set([...before.keys(), ...standing.keys()])].filter(
      (key) => before.get(key) !== standing.get(key),
    );
    // Files of a sidecar are not objects: before 4.1.0 their change alone has no effect.
    if (changed.length === 0 && env.version !== undefined && env.version < '4.1.0') return undefined;
    const mappings = new Set(before.size === 0 ? [] : changed.filter((key) => /\|(TCP)?Mapping\|/.test(key)));
    const next = reconfigure(inForce, configure(snapshotOf(objects), env, pod), mappings);
    const refusal = await plane.take(next, starts, pod);
    if (refusal === undefined) inForce = next;
    return refusal;
  };

  return {
    async start(objects, pod) {
      await plane.clear();
      starts += 1;
      inForce = EMPTY;
      standing = new Map();
      return change(objects, pod);
    },
    change,
    aim(port) {
      aim.target = port;
    },
    async request(path = '/web/') {
      const route = inForce.routes.find(({ prefix }) => path.startsWith(prefix));
      if (!route) return 'absent';
      const { status, body } = await plane.send(route.cluster, path);
      if (status !== 200) return 'refused';
      const { peer } = JSON.parse(body) as { readonly peer: string | null };
      return peer === null ? 'plaintext' : peer || 'anonymous';
    },
    [Symbol.asyncDispose]: () => plane[Symbol.asyncDispose](),
  };
}
