import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { ConnectionOptions, SecureVersion } from 'node:tls';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { asEnvoySees, type ClusterConfig } from './configuration.ts';

export interface PoolEndpoint {
  readonly host: string;
  readonly port: number;
}

/** Open connections. After they are retired, requests in progress still complete, and the last one closes them. */
export class UpstreamConnections {
  readonly agent: HttpAgent | HttpsAgent;
  #inFlight = 0;
  #retired = false;

  constructor(agent: HttpAgent | HttpsAgent) {
    this.agent = agent;
  }

  /** Counts a request as in progress until it ends. */
  carry(sent: ClientRequest): void {
    this.#inFlight++;
    sent.once('close', () => {
      this.#inFlight--;
      if (this.#retired && this.#inFlight === 0) this.agent.destroy();
    });
  }

  retire(): void {
    this.#retired = true;
    if (this.#inFlight === 0) this.agent.destroy();
  }
}

/** The connections to one upstream under one configuration. */
export class UpstreamPool {
  readonly cluster: ClusterConfig;
  readonly key: string;
  readonly #tls: ConnectionOptions | undefined;
  readonly #connections: UpstreamConnections;

  constructor(cluster: ClusterConfig) {
    this.cluster = cluster;
    this.key = asEnvoySees(cluster);
    this.#tls = tlsOptions(cluster);
    // Session resumption would skip the verification that the sandbox must show.
    this.#connections = new UpstreamConnections(
      this.#tls
        ? new HttpsAgent({ keepAlive: true, maxCachedSessions: 0, ...this.#tls })
        : new HttpAgent({ keepAlive: true }),
    );
  }

  /** Sends a request; with `fresh`, on a new connection. The caller writes the body and ends it. */
  send(
    endpoint: PoolEndpoint,
    options: Pick<RequestOptions, 'method' | 'path' | 'headers'>,
    fresh: boolean,
    answered: (response: IncomingMessage) => void,
  ): ClientRequest {
    const all = { ...options, ...endpoint, agent: fresh ? false : this.#connections.agent, ...this.#tls } as const;
    const sent = this.#tls ? httpsRequest(all, answered) : httpRequest(all, answered);
    this.#connections.carry(sent);
    return sent;
  }

  retire(): void {
    this.#connections.retire();
  }

  destroy(): void {
    this.#connections.agent.destroy();
  }
}

/** Emissary has Envoy check only the chain: no name of the server is ever compared. */
function tlsOptions({ tls }: ClusterConfig): ConnectionOptions | undefined {
  if (!tls) return undefined;
  return {
    cert: tls.certificate?.pem,
    key: tls.key?.pem,
    ca: tls.ca && firstOfEachAuthority(tls.ca.pem ?? ''),
    ...(tls.crl?.pem === undefined ? {} : { crl: tls.crl.pem }),
    rejectUnauthorized: tls.ca !== undefined,
    checkServerIdentity: () => undefined,
    servername: tls.sni ?? '',
    ...(tls.alpn ? { ALPNProtocols: tls.alpn.split(',') } : {}),
    ...(tls.min ? { minVersion: version(tls.min) } : {}),
    // Envoy's own limit towards upstreams.
    maxVersion: tls.max ? version(tls.max) : 'TLSv1.2',
  };
}

/**
 * An earlier root hides a later one of the same subject and key, even if it has expired. Envoy sorts bundles of more than
 * 16 roots; here the one that ends first then hides the other.
 */
export function firstOfEachAuthority(pem: string): string[] {
  const found = new Map<string, string>();
  const roots = [...parseCertificates(pem)];
  if (roots.length > SORTED_FROM) roots.sort((one, other) => one.notAfter - other.notAfter);
  for (const { subject, publicKeyFingerprint, pem: one } of roots) {
    const authority = `${publicKeyFingerprint} ${subject}`;
    if (!found.has(authority)) found.set(authority, one);
  }
  return [...found.values()];
}

const SORTED_FROM = 16;

const version = (text: string): SecureVersion => text.replace(/^v/, 'TLSv') as SecureVersion;
