import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import type { ProbeWish } from '../config/mesh-certificate.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Identity } from '../mesh/identity.ts';
import { Certificate } from '../pki/certificate.ts';

export type ProbeCode =
  | 'accepted'
  | 'ERR_PROBE_UNREACHABLE'
  | 'ERR_PROBE_TIMEOUT'
  | 'ERR_PROBE_UPSTREAM_UNTRUSTED'
  | 'ERR_PROBE_UPSTREAM_ID'
  | 'ERR_PROBE_REFUSED';

export interface ProbeResult {
  readonly code: ProbeCode;
  readonly message: string;
  /** URI or DNS names that the upstream presented. */
  readonly peer: readonly string[];
  readonly tlsVersion?: string | undefined;
  readonly httpStatus?: number | undefined;
}

export interface ProbeOptions {
  readonly clock: Clock;
  readonly tls?:
    | {
        readonly alpnProtocols?: string | undefined;
        readonly minTlsVersion?: string | undefined;
        readonly maxTlsVersion?: string | undefined;
      }
    | undefined;
  /** Milliseconds for connect and handshake, and again for the answer. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** In TLS 1.3 the server judges our certificate after our handshake is done; its alert arrives within a round trip. */
const ALERT_WAIT_MS = 500;
const TIMEOUT_MS = 5000;
/**
 * What ends a connection is about our certificate only once that was sent. In TLS 1.3 the handshake is then done; in
 * TLS 1.2 nothing tells but the label of the secret that is derived right behind it.
 */
const SENT_OVER_1_2 = Buffer.from('CLIENT_RANDOM ');

/**
 * Shows an identity to a real upstream as the gateway would, and checks the upstream's own identity, which
 * Emissary cannot: connects, reads on for a late refusal, and asks over HTTP where that is wished.
 */
export async function probe(
  wish: ProbeWish,
  identity: Pick<Identity, 'key' | 'chain'>,
  bundle: readonly Certificate[],
  options: ProbeOptions,
): Promise<ProbeResult> {
  const { host, port } = splitAddress(wish.address);
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  const alpn = options.tls?.alpnProtocols?.split(',').map((protocol) => protocol.trim());
  const settings: ConnectionOptions = {
    host,
    port,
    cert: identity.chain.map((certificate) => certificate.pem).join(''),
    key: identity.key.toPem(),
    ca: bundle.map((root) => root.pem),
    ...(wish.sni === undefined ? {} : { servername: wish.sni }),
    ...(alpn ? { ALPNProtocols: alpn } : {}),
    ...tlsVersions(options.tls),
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  };
  return new Promise((resolve) => {
    const socket = connect(settings);
    const finish = (result: ProbeResult) => {
      options.signal?.removeEventListener('abort', abort);
      cancel();
      socket.destroy();
      resolve(result);
    };
    const at = wish.address;
    const abort = () => finish({ code: 'ERR_PROBE_TIMEOUT', message: `the probe of ${at} was cut short`, peer: [] });
    let cancel = options.clock.after(timeoutMs, () =>
      finish({ code: 'ERR_PROBE_TIMEOUT', message: `no TLS handshake with ${at} within ${timeoutMs} ms`, peer: [] }),
    );
    options.signal?.addEventListener('abort', abort, { once: true });
    let peer: string[] = [];
    let connected = false;
    socket.once('connect', () => {
      connected = true;
    });
    let shown = false;
    socket.on('keylog', (line) => {
      shown ||= line.subarray(0, SENT_OVER_1_2.length).equals(SENT_OVER_1_2);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (shown) {
        return finish({
          code: 'ERR_PROBE_REFUSED',
          message: `${at} ended the TLS handshake, as a server does that refuses our certificate: ${reason(error)}`,
          peer,
        });
      }
      const what = connected ? `${at} ended the TLS handshake before it saw our certificate` : `no connection to ${at}`;
      finish({ code: 'ERR_PROBE_UNREACHABLE', message: `${what}: ${reason(error)}`, peer });
    });
    socket.once('secureConnect', () => {
      shown = true;
      peer = namesOf(socket);
      if (!socket.authorized) {
        const why = String(socket.authorizationError ?? 'unknown');
        const message = `the certificate of ${at} does not verify under the bundle: ${why}`;
        return finish({ code: 'ERR_PROBE_UPSTREAM_UNTRUSTED', message, peer });
      }
      if (wish.id !== undefined && !peer.includes(wish.id)) {
        const message = `${at} presents ${peer.join(', ') || 'no name'}, not ${wish.id}`;
        return finish({ code: 'ERR_PROBE_UPSTREAM_ID', message, peer });
      }
      cancel();
      const tlsVersion = socket.getProtocol() ?? undefined;
      const accepted = (httpStatus?: number) =>
        finish({ code: 'accepted', message: `${at} accepts the certificate`, peer, tlsVersion, httpStatus });
      let answer = '';
      socket.on('data', (data) => {
        answer = (answer + data.toString('latin1')).slice(0, 256);
        const status = /^HTTP\/1\.[01] (\d{3})/.exec(answer)?.[1];
        if (wish.http && status === undefined) return;
        accepted(status === undefined ? undefined : Number(status));
      });
      socket.once('end', () =>
        finish({ code: 'ERR_PROBE_REFUSED', message: `${at} closed the connection after the handshake`, peer }),
      );
      if (wish.http) {
        const name = wish.sni ?? host;
        socket.write(`GET ${wish.http.path} HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n\r\n`);
        cancel = options.clock.after(timeoutMs, () =>
          finish({ code: 'ERR_PROBE_TIMEOUT', message: `${at} did not answer within ${timeoutMs} ms`, peer }),
        );
      } else {
        cancel = options.clock.after(ALERT_WAIT_MS, () => accepted());
      }
    });
  });
}

export function splitAddress(address: string): { host: string; port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
}

function tlsVersions(tls: ProbeOptions['tls']): Pick<ConnectionOptions, 'minVersion' | 'maxVersion'> {
  const name = (version: string | undefined) =>
    version === 'v1.3' ? 'TLSv1.3' : version === 'v1.2' ? 'TLSv1.2' : undefined;
  const minVersion = name(tls?.minTlsVersion);
  const maxVersion = name(tls?.maxTlsVersion);
  return { ...(minVersion ? { minVersion } : {}), ...(maxVersion ? { maxVersion } : {}) };
}

function namesOf(socket: TLSSocket): string[] {
  const { raw } = socket.getPeerCertificate();
  if (!raw) return [];
  const { uris, dns } = Certificate.fromDer(raw).names;
  return [...uris, ...dns];
}

const reason = (error: NodeJS.ErrnoException): string => error.code ?? error.message.split('\n')[0] ?? 'unknown error';
