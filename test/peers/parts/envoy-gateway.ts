import { setMaxListeners } from 'node:events';
import {
  asEnvoySees,
  type ClusterConfig,
  type Configuration,
  configure,
  EMPTY,
  reconfigure,
} from '../../../sandbox/emissary/configuration.ts';
import { watchBatches } from '../../../sandbox/emissary/watching.ts';
import { systemClock } from '../../../src/async/clock.ts';
import { DEFAULT_ENV, type EmissaryEnv } from '../../../src/gateway/emissary/reading.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { silentLog } from '../../../src/mesh/log.ts';
import { type Envoy, type EnvoyControl, type EnvoyObject, startEnvoy } from '../servers/envoy.ts';
import { headerListener } from '../servers/envoy-config.ts';
import { freePorts } from '../servers/loopback.ts';
import { clusterOf } from './envoy-clusters.ts';

/** An Envoy that is configured by Emissary's rules from the objects in the API server. */
export interface Configurer extends AsyncDisposable {
  readonly configuration: Configuration;
  /** Configurations that Envoy has accepted. */
  readonly swaps: number;
  until(holds: (configuration: Configuration) => boolean, deadlineMs?: number): Promise<void>;
}

export interface EnvoyGateway extends Configurer {
  readonly url: string;
  readonly envoy: Envoy;
}

export interface EnvoyGatewayOptions {
  readonly kube: Kube;
  readonly env?: Partial<EmissaryEnv>;
  /** Where a Mapping's service really listens: a loopback port. */
  readonly resolve: (host: string) => number | undefined;
  /** A connection carries this many requests and idles half a second at most, so that handshakes never stop. */
  readonly freshEvery?: number;
}

/**
 * A real Envoy, configured by Emissary's rules from the objects in the API server: files named by their content, whole
 * sets of clusters swapped by CDS.
 */
export async function startEnvoyGateway(options: EnvoyGatewayOptions): Promise<EnvoyGateway> {
  const { http } = await freePorts('http');
  const envoy = await startEnvoy({ listeners: [headerListener(http, 'x-cluster')], clusters: [] });
  const { freshEvery, kube, env, resolve } = options;
  const configurer = configureEnvoy({
    kube,
    ...(env ? { env } : {}),
    envoy,
    known: ({ host }) => resolve(host) !== undefined,
    clusterOf: (one) => clusterOf(one, resolve(one.host) ?? 0, envoy.dir, freshEvery),
  });
  return {
    url: `http://127.0.0.1:${http}`,
    envoy,
    get configuration() {
      return configurer.configuration;
    },
    get swaps() {
      return configurer.swaps;
    },
    until: configurer.until,
    async [Symbol.asyncDispose]() {
      try {
        await configurer[Symbol.asyncDispose]();
      } finally {
        await envoy.stop();
      }
    },
  };
}

/** Swaps whole sets of clusters of a running Envoy by CDS, with files that are named by their content. */
export function configureEnvoy(options: {
  readonly kube: Kube;
  readonly env?: Partial<EmissaryEnv>;
  readonly envoy: EnvoyControl;
  /** Whether the cluster's host is available; the others are omitted. */
  readonly known: (cluster: ClusterConfig) => boolean;
  readonly clusterOf: (cluster: ClusterConfig) => Promise<EnvoyObject>;
}): Configurer {
  const { envoy } = options;
  const env = { ...DEFAULT_ENV, ...options.env };
  const stop = new AbortController();
  // One watch for each kind listens to it.
  setMaxListeners(0, stop.signal);
  const waiting = new Set<() => void>();
  let configuration = EMPTY;
  let seen = '';
  let swaps = 0;

  const apply = async (next: Configuration) => {
    const clusters = [...next.clusters.values()].filter(options.known);
    const text = clusters.map(asEnvoySees).sort().join('\n');
    if (text !== seen) {
      await envoy.swap(await Promise.all(clusters.map(options.clusterOf)));
      seen = text;
      swaps += 1;
    }
    configuration = next;
    for (const wake of waiting) wake();
  };

  const follow = async () => {
    const watching = { clock: systemClock, random: Math.random, log: silentLog, signal: stop.signal };
    for await (const { snapshot, changedMappings } of watchBatches(options.kube, env.batchMs, watching)) {
      await apply(reconfigure(configuration, configure(snapshot, env), changedMappings));
    }
  };
  let failure: unknown;
  const following = follow().catch((error) => {
    if (!stop.signal.aborted) failure = error;
    for (const wake of waiting) wake();
  });

  return {
    get configuration() {
      return configuration;
    },
    get swaps() {
      return swaps;
    },
    until: (holds, deadlineMs = 60_000) =>
      new Promise((resolve, reject) => {
        const settle = (error?: unknown) => {
          clearTimeout(timer);
          waiting.delete(check);
          if (error) reject(error);
          else resolve();
        };
        const timer = setTimeout(() => settle(new Error('the gateway was not configured as awaited')), deadlineMs);
        const check = () => {
          if (failure) settle(failure);
          else if (holds(configuration)) settle();
        };
        waiting.add(check);
        check();
      }),
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('the gateway stops'));
      await following;
      if (failure) throw failure;
    },
  };
}
