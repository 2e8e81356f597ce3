import { peer } from '../build.ts';
import type { Consul } from './consul.ts';
import { freePorts, listening } from './loopback.ts';
import { Daemon, type Server, scratchDir, serverOf } from './process.ts';

/** A real mTLS upstream that enforces intentions: Go TLS 1.2 or newer, no ALPN, client certificate required. */
export interface ConsulConnectProxy extends Server {
  readonly address: string;
  readonly port: number;
}

export interface ConnectProxyOptions {
  readonly consul: Consul;
  readonly service: string;
  /** Where the plain service listens. */
  readonly target: { readonly port: number };
  /** The bootstrap token unless given. */
  readonly token?: string;
}

export async function startConsulConnectProxy(options: ConnectProxyOptions): Promise<ConsulConnectProxy> {
  const { consul, service, target, token = consul.token } = options;
  const dir = scratchDir('connect-proxy');
  const { port } = await freePorts('port');
  const address = `127.0.0.1:${port}`;
  const daemon = await Daemon.start({
    name: 'consul connect proxy',
    file: await peer('consul'),
    args: [
      ...['connect', 'proxy', '-log-level=info', '-service', service],
      ...['-service-addr', `127.0.0.1:${target.port}`, '-listen', address],
    ],
    dir,
    env: { ...consul.clientEnv, CONSUL_HTTP_TOKEN: token },
    // It listens only once it has a leaf and roots.
    ready: () => listening(port),
  });
  return { ...serverOf(daemon, dir), address, port };
}
