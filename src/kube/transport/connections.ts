import { Agent as PlainAgent } from 'node:http';
import { Agent, type AgentOptions, type RequestOptions } from 'node:https';
import { createSecureContext } from 'node:tls';
import type { Clock } from '../../async/clock.ts';
import { limitedTo } from '../../async/linked-signal.ts';
import type { Access } from './credentials.ts';
import { connectThrough, errorFromSilence } from './proxy.ts';

/** Short enough that the server (kube-apiserver: 90 s or more) never closes an idle connection first. */
const IDLE_MS = 30_000;

/**
 * Requests that wait for one of a few connections, and those that never wait: watches stay open, and a Lease that waits
 * is lost.
 */
export type ConnectionPool = 'requests' | 'unqueued';

interface ConnectionsOptions {
  readonly clock: Clock;
  /** Of a request. A connection through a proxy gets half of it, so that the error names the proxy. */
  readonly deadlineMs: number;
  /** Of the pool `requests`. */
  readonly concurrency: number;
}

/** Kept-alive connections to one server as one user, directly or through a proxy, until disposed of. */
export class ApiConnections implements Disposable, Record<ConnectionPool, PlainAgent> {
  readonly generation: number;
  readonly requests: PlainAgent;
  readonly unqueued: PlainAgent;
  readonly #end = new AbortController();

  constructor(access: Access, options: ConnectionsOptions) {
    this.generation = access.generation;
    const isPlain = access.server.protocol === 'http:';
    const shared: AgentOptions = {
      ...access.tls,
      keepAlive: true,
      timeout: IDLE_MS,
      scheduling: 'lifo',
      // Otherwise each connection would read the CA and the client certificate again: by names, each object is watched
      // over a connection of its own.
      ...(isPlain ? {} : { secureContext: createSecureContext(access.tls) }),
    };
    const newAgent = (maxSockets: number) => {
      const agent = isPlain ? new PlainAgent({ ...shared, maxSockets }) : new Agent({ ...shared, maxSockets });
      // One server for each agent: otherwise Node would compute a name from all of its addresses and certificates at
      // each request.
      agent.getName = () => 'api';
      if (access.proxy) this.#leadThrough(access.proxy, agent, options);
      return agent;
    };
    this.requests = newAgent(options.concurrency);
    this.unqueued = newAgent(Number.POSITIVE_INFINITY);
  }

  [Symbol.dispose](): void {
    this.#end.abort(new Error('the connections are no longer needed'));
    this.requests.destroy();
    this.unqueued.destroy();
  }

  /** Only the first hop differs: the agent makes TLS, keeps connections and counts them as without a proxy. */
  #leadThrough(proxy: URL, agent: PlainAgent, { clock, deadlineMs }: ConnectionsOptions): void {
    const direct = agent.createConnection.bind(agent);
    const connect = async (options: RequestOptions) => {
      const target = { host: options.host ?? '', port: Number(options.port) };
      const limitMs = deadlineMs / 2;
      const late = () => errorFromSilence(proxy, limitMs);
      using limit = limitedTo(clock, limitMs, late, this.#end.signal);
      const socket = await connectThrough(proxy, target, limit.signal);
      if (!(agent instanceof Agent)) return socket;
      const stream = direct({ ...options, socket } as RequestOptions);
      if (!stream) throw new TypeError('no TLS over the connection through the proxy');
      return stream;
    };
    agent.createConnection = (options, opened) => {
      connect(options).then(
        (stream) => opened?.(null, stream),
        (error) => opened?.(error, undefined as never),
      );
      return undefined;
    };
  }
}
