import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import type { Clock } from '../async/clock.ts';
import { asError } from '../async/retrying.ts';
import type { ProbeSpec } from '../config/schema/mesh-certificate.ts';
import type { Identity } from '../mesh/identity.ts';
import { splitAddress } from '../mesh/schema.ts';
import { Certificate } from '../pki/certificate.ts';

export type ProbeCode =
  | 'accepted'
  | 'ERR_PROBE_UNREACHABLE'
  | 'ERR_PROBE_TIMEOUT'
  | 'ERR_PROBE_FAILED'
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
 * The end of a connection is about our certificate only after that was sent. In TLS 1.3 the handshake is then done; in
 * TLS 1.2 the only sign is the label of the secret that is derived immediately afterwards.
 */
const SENT_OVER_1_2 = Buffer.from('CLIENT_RANDOM ');

/**
 * Shows an identity to a real upstream as the gateway would, and checks the upstream's own identity, which
 * a gateway may leave out: connects, reads on for a late refusal, and sends a request over HTTP if one is configured.
 * Never rejects: whatever the upstream sends, and whatever TLS refuses to send, becomes a result with a code.
 */
export async function probe(
  probeSpec: ProbeSpec,
  identity: Pick<Identity, 'key' | 'chain'>,
  bundle: readonly Certificate[],
  options: ProbeOptions,
): Promise<ProbeResult> {
  const { host, port } = splitAddress(probeSpec.address);
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  const alpn = options.tls?.alpnProtocols?.split(',').map((protocol) => protocol.trim());
  const settings: ConnectionOptions = {
    host,
    port,
    cert: identity.chain.map((certificate) => certificate.pem).join(''),
    key: identity.key.toPem(),
    ca: bundle.map((root) => root.pem),
    ...(probeSpec.sni === undefined ? {} : { servername: probeSpec.sni }),
    ...(alpn ? { ALPNProtocols: alpn } : {}),
    ...tlsVersions(options.tls),
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  };
  return new Promise((resolve) => {
    const at = probeSpec.address;
    let socket: TLSSocket | undefined;
    let cancel = () => {};
    const finish = (code: ProbeCode, message: string, more: Partial<ProbeResult> = {}) => {
      options.signal?.removeEventListener('abort', abort);
      cancel();
      socket?.destroy();
      resolve({ code, message, peer: [], ...more });
    };
    /** A listener that throws would end the process. */
    const guarded = <T extends readonly unknown[]>(listener: (...args: T) => void) => {
      return (...args: T) => {
        try {
          listener(...args);
        } catch (error) {
          finish('ERR_PROBE_FAILED', `the probe of ${at} failed: ${reason(asError(error))}`);
        }
      };
    };
    const within = (ms: number, late: () => void) => {
      cancel();
      cancel = options.clock.after(ms, guarded(late));
    };
    const abort = () => finish('ERR_PROBE_TIMEOUT', `the probe of ${at} was cut short`);
    options.signal?.addEventListener('abort', abort, { once: true });
    within(timeoutMs, () => finish('ERR_PROBE_TIMEOUT', `no TLS handshake with ${at} within ${timeoutMs} ms`));

    const begin = guarded(() => {
      const opened = connect(settings);
      socket = opened;
      let peer: string[] = [];
      let connected = false;
      let shown = false;
      opened.once('connect', () => {
        connected = true;
      });
      opened.on('keylog', (line) => {
        shown ||= line.subarray(0, SENT_OVER_1_2.length).equals(SENT_OVER_1_2);
      });
      const onError = (error: NodeJS.ErrnoException) => {
        const why = reason(error);
        if (shown) {
          const what = 'ended the TLS handshake, which means that it refuses the certificate';
          return finish('ERR_PROBE_REFUSED', `${at} ${what}: ${why}`, { peer });
        }
        const what = connected
          ? `${at} ended the TLS handshake before it received the certificate`
          : `no connection to ${at}`;
        finish('ERR_PROBE_UNREACHABLE', `${what}: ${why}`, { peer });
      };
      const onSecure = () => {
        shown = true;
        peer = namesOf(opened);
        if (!opened.authorized) {
          const why = String(opened.authorizationError ?? 'unknown');
          const message = `the certificate of ${at} does not verify under the bundle: ${why}`;
          return finish('ERR_PROBE_UPSTREAM_UNTRUSTED', message, { peer });
        }
        if (probeSpec.id !== undefined && !peer.includes(probeSpec.id)) {
          return finish('ERR_PROBE_UPSTREAM_ID', `${at} presents ${listed(peer)}, not ${probeSpec.id}`, { peer });
        }
        const tlsVersion = opened.getProtocol() ?? undefined;
        const accepted = (httpStatus?: number) =>
          finish('accepted', `${at} accepts the certificate`, { peer, tlsVersion, httpStatus });
        const onEnd = () => finish('ERR_PROBE_REFUSED', `${at} closed the connection after the handshake`, { peer });
        let answer = '';
        const onData = (data: Buffer) => {
          answer = (answer + data.toString('latin1')).slice(0, 256);
          const status = /^HTTP\/1\.[01] (\d{3})/.exec(answer)?.[1];
          if (probeSpec.http && status === undefined) return;
          accepted(status === undefined ? undefined : Number(status));
        };
        opened.on('data', guarded(onData));
        opened.once('end', guarded(onEnd));
        if (probeSpec.http) {
          const name = probeSpec.sni ?? host;
          opened.write(`GET ${probeSpec.http.path} HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n\r\n`);
          within(timeoutMs, () => finish('ERR_PROBE_TIMEOUT', `${at} did not answer within ${timeoutMs} ms`, { peer }));
        } else {
          within(ALERT_WAIT_MS, () => accepted());
        }
      };
      // More than once: an error that comes after the first one must have a listener too.
      opened.on('error', guarded(onError));
      opened.once('secureConnect', guarded(onSecure));
    });
    begin();
  });
}

function tlsVersions(tls: ProbeOptions['tls']): Pick<ConnectionOptions, 'minVersion' | 'maxVersion'> {
  const name = (version: string | undefined) =>
    version === 'v1.3' ? 'TLSv1.3' : version === 'v1.2' ? 'TLSv1.2' : undefined;
  const minVersion = name(tls?.minTlsVersion);
  const maxVersion = name(tls?.maxTlsVersion);
  return { ...(minVersion ? { minVersion } : {}), ...(maxVersion ? { maxVersion } : {}) };
}

/** URI and DNS names; empty if we cannot parse the certificate, although TLS accepts it. */
function namesOf(socket: TLSSocket): string[] {
  const raw = socket.getPeerX509Certificate()?.raw;
  if (!raw) return [];
  try {
    const { uris, dns } = Certificate.fromDer(raw).names;
    return [...uris, ...dns];
  } catch {
    return [];
  }
}

/** Names of the upstream's choice, for a message: one line, not endless. */
function listed(names: readonly string[]): string {
  if (names.length === 0) return 'no name that can be read';
  const text = names.join(', ').replace(/[^ -~]+/g, '?');
  return text.length <= 300 ? text : `${text.slice(0, 297)}...`;
}

const reason = (error: NodeJS.ErrnoException): string => error.code ?? error.message.split('\n')[0] ?? 'unknown error';
