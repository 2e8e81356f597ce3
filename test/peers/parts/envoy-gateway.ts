import { setMaxListeners } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DEFAULT_ENV, type EmissaryEnv } from '../../../src/gateway/env.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { systemClock } from '../../../src/mesh/clock.ts';
import { silentLog } from '../../../src/mesh/log.ts';
import {
  asEnvoySees,
  type ClusterConfig,
  type Configuration,
  configure,
  EMPTY,
  reconfigure,
} from '../../../src/sandbox/gateway/configuration.ts';
import { watchBatches } from '../../../src/sandbox/gateway/watching.ts';
import { type Envoy, type EnvoyObject, startEnvoy } from '../servers/envoy.ts';
import { headerListener, plainCluster } from '../servers/envoy-config.ts';
import { freePorts } from '../servers/loopback.ts';

export interface EnvoyGateway extends AsyncDisposable {
  readonly url: string;
  readonly envoy: Envoy;
  readonly configuration: Configuration;
  /** Configurations that Envoy has taken. */
  readonly swaps: number;
  until(holds: (configuration: Configuration) => boolean, deadlineMs?: number): Promise<void>;
}

export interface EnvoyGatewayOptions {
  readonly kube: Kube;
  readonly env?: Partial<EmissaryEnv>;
  /** Where a Mapping's service really listens: a loopback port. */
  readonly resolve: (host: string) => number | undefined;
  /** A connection carries so many requests and idles half a second at most, so that handshakes never cease. */
  readonly freshEvery?: number;
}

const type = (name: string): string => `type.googleapis.com/envoy.${name}`;

/**
 * A real Envoy, configured by Emissary's rules from what stands in the API server: files named by their content,
 * whole sets of clusters swapped by CDS.
 */
export async function startEnvoyGateway(options: EnvoyGatewayOptions): Promise<EnvoyGateway> {
  const env = { ...DEFAULT_ENV, ...options.env };
  const { http } = await freePorts('http');
  const stop = new AbortController();
  // One watch for each kind listens to it.
  setMaxListeners(0, stop.signal);
  const waiting = new Set<() => void>();
  const envoy = await startEnvoy({ listeners: [headerListener(http, 'x-cluster')], clusters: [] });
  let configuration = EMPTY;
  let seen = '';
  let swaps = 0;

  const apply = async (next: Configuration) => {
    const clusters = [...next.clusters.values()].filter(({ host }) => options.resolve(host) !== undefined);
    const text = clusters.map(asEnvoySees).sort().join('\n');
    if (text !== seen) {
      await envoy.swap(await Promise.all(clusters.map((cluster) => clusterOf(cluster, envoy.dir, options))));
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
    url: `http://127.0.0.1:${http}`,
    envoy,
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
      await envoy.stop();
      if (failure) throw failure;
    },
  };
}

/** The upstreams run in the process of the test, which a busy machine has stalled for longer than Emissary's 3 s. */
const CONNECT_TIMEOUT = '15s';

async function clusterOf(
  { name, host, tls }: ClusterConfig,
  dir: string,
  { resolve, freshEvery }: EnvoyGatewayOptions,
): Promise<EnvoyObject> {
  const plain = {
    ...plainCluster(name, resolve(host) ?? 0),
    connect_timeout: CONNECT_TIMEOUT,
    ...(freshEvery ? shortConnections(freshEvery) : {}),
  };
  if (!tls) return plain;
  const file = async (pem: { readonly path: string; readonly pem: string } | undefined) => {
    if (!pem) return undefined;
    const path = join(dir, pem.path.replaceAll('/', '_'));
    await mkdir(dir, { recursive: true });
    await writeFile(path, pem.pem);
    return path;
  };
  const [certificate, key, ca] = await Promise.all([file(tls.certificate), file(tls.key), file(tls.ca)]);
  const version = (text: string | undefined) => text && `TLS${text.replace('.', '_')}`;
  return {
    ...plain,
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: {
        '@type': type('extensions.transport_sockets.tls.v3.UpstreamTlsContext'),
        ...(tls.sni ? { sni: tls.sni } : {}),
        common_tls_context: {
          ...(certificate && key
            ? { tls_certificates: [{ certificate_chain: { filename: certificate }, private_key: { filename: key } }] }
            : {}),
          ...(ca ? { validation_context: { trusted_ca: { filename: ca } } } : {}),
          ...(tls.alpn ? { alpn_protocols: [tls.alpn] } : {}),
          tls_params: {
            ...(tls.min ? { tls_minimum_protocol_version: version(tls.min) } : {}),
            ...(tls.max ? { tls_maximum_protocol_version: version(tls.max) } : {}),
          },
        },
      },
    },
  };
}

function shortConnections(requests: number): EnvoyObject {
  const name = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  return {
    typed_extension_protocol_options: {
      [name]: {
        '@type': `type.googleapis.com/${name}`,
        explicit_http_config: { http_protocol_options: {} },
        common_http_protocol_options: { idle_timeout: '0.5s', max_requests_per_connection: requests },
      },
    },
  };
}
