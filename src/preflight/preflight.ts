import { duplexPair } from 'node:stream';
import { connect, createSecureContext, createServer, type SecureContext, type Server, type TLSSocket } from 'node:tls';
import { type Clock, systemClock } from '../async/clock.ts';
import { Semaphore } from '../async/limits.ts';
import type { Preflight, PreflightVerdict, Presented } from '../core/preflight.ts';
import { type Certificate, formatCertificates } from '../pki/certificate.ts';
import type { Crl } from '../pki/crl.ts';
import { throwawayPair } from '../pki/csr.ts';

export interface PreflightOptions {
  /** Used only for the timeout. */
  readonly clock?: Clock;
  readonly timeoutMs?: number;
}

/** A handshake takes 2 to 4 ms of CPU. A process that does not get that much within this time is not fit to publish. */
const TIMEOUT_MS = 10_000;
/** OpenSSL runs on this thread: more concurrent handshakes would only take longer each. */
const AT_ONCE = 2;
/**
 * Number of cached bundle contexts; the MeshCertificates of one mesh share one. A context of 64 roots takes about 700
 * KB.
 */
const MOST_CONTEXTS = 8;
/** Without this Node loads the public root store. */
const NO_ROOTS = { ca: [] as string[] };
/** Nothing secret is sent. OpenSSL's first choice, a post-quantum key exchange, takes a seventh of the handshake's CPU. */
const KEY_EXCHANGE = { ecdhCurve: 'prime256v1' };

/**
 * A TLS 1.3 handshake within the process, judged by OpenSSL: the pair is the client, and the server trusts exactly the
 * bundle, including its intermediates.
 */
export function opensslPreflight({ clock = systemClock, timeoutMs = TIMEOUT_MS }: PreflightOptions = {}): Preflight {
  const turns = new Semaphore(AT_ONCE);
  let server: ThrowawayServer | undefined;
  return async (pair, bundle, crls) => {
    const done = new AbortController();
    using _turn = await turns.take(done.signal);
    const late = clock.sleep(timeoutMs, done.signal).then(
      () => failed(`it did not end within ${timeoutMs / 1000} s`),
      () => failed('it was ended'),
    );
    try {
      server ??= new ThrowawayServer();
      return await Promise.race([handshake(pair, bundle, crls, server, done.signal), late]);
    } catch (error) {
      return failed(textOf(error));
    } finally {
      done.abort();
    }
  };
}

/** What happens on the server's side of one handshake. */
interface Guest {
  readonly trusting: SecureContext;
  secured(socket: TLSSocket): void;
  failed(error: Error): void;
}

/** Listens nowhere. The SNI of a client selects the bundle that the server trusts. */
class ThrowawayServer {
  readonly #own = { ...throwawayPair(), ...KEY_EXCHANGE, minVersion: 'TLSv1.3' } as const;
  readonly #contexts = new Map<string, SecureContext>();
  readonly #guests = new Map<string, Guest>();
  readonly #server: Server;
  #count = 0;

  constructor() {
    const guestOf = ({ servername }: TLSSocket) => this.#guests.get(String(servername));
    // A server accepts partial chains only through a context that its SNI callback selects.
    this.#server = createServer({
      ...this.#own,
      ...NO_ROOTS,
      requestCert: true,
      rejectUnauthorized: false,
      SNICallback: (name, select) => select(null, this.#guests.get(name)?.trusting),
    });
    this.#server.on('secureConnection', (socket) => guestOf(socket)?.secured(socket));
    this.#server.on('tlsClientError', (error, socket) => guestOf(socket)?.failed(error));
  }

  /** Returns the SNI to use; valid until the signal is aborted. */
  invite(guest: Guest, signal: AbortSignal): string {
    const name = `handshake-${++this.#count}`;
    this.#guests.set(name, guest);
    signal.addEventListener('abort', () => this.#guests.delete(name), { once: true });
    return name;
  }

  accept(stream: ReturnType<typeof duplexPair>[number]): void {
    this.#server.emit('connection', stream);
  }

  trusting(bundle: readonly Certificate[], crls: readonly Crl[] = []): SecureContext {
    const key = [...bundle, ...crls].map(({ fingerprint }) => fingerprint).join();
    const ca = bundle.map(({ pem }) => pem);
    // With a CRL, Node checks each certificate of the chain, as Envoy does.
    const revocation = crls.length === 0 ? {} : { crl: crls.map(({ pem }) => pem) };
    const context =
      this.#contexts.get(key) ?? createSecureContext({ ...this.#own, ca, ...revocation, allowPartialTrustChain: true });
    // Moved to the end, so that the first is the one that was used longest ago.
    this.#contexts.delete(key);
    this.#contexts.set(key, context);
    const [oldest] = this.#contexts.keys();
    if (this.#contexts.size > MOST_CONTEXTS && oldest !== undefined) this.#contexts.delete(oldest);
    return context;
  }
}

function handshake(
  pair: Presented,
  bundle: readonly Certificate[],
  crls: readonly Crl[] | undefined,
  server: ThrowawayServer,
  signal: AbortSignal,
): Promise<PreflightVerdict> {
  let secureContext: SecureContext;
  try {
    const [key, cert] = [pair.key.toPem(), formatCertificates(pair.chain)];
    secureContext = createSecureContext({ ...NO_ROOTS, ...KEY_EXCHANGE, key, cert });
  } catch (error) {
    return Promise.resolve(refused(`it does not load the pair: ${textOf(error)}`));
  }
  const trusting = server.trusting(bundle, crls);
  const [near, far] = duplexPair();
  return new Promise<PreflightVerdict>((resolve) => {
    const onError = (error: unknown) => resolve(refused(textOf(error)));
    const servername = server.invite(
      { trusting, failed: onError, secured: (socket) => resolve(verdictOf(socket, pair)) },
      signal,
    );
    const client = connect({ socket: near, servername, secureContext, rejectUnauthorized: false });
    signal.addEventListener('abort', () => {
      for (const stream of [client, near, far]) stream.destroy();
    });
    for (const stream of [client, near, far]) stream.on('error', onError);
    client.on('close', () => resolve(refused('the connection was closed')));
    server.accept(far);
  });
}

function verdictOf(socket: TLSSocket, { chain: [leaf] }: Presented): PreflightVerdict {
  const presented = socket.getPeerX509Certificate();
  if (presented?.raw.equals(leaf?.der ?? Buffer.alloc(0)) !== true) return refused('the leaf was not presented');
  return socket.authorized ? { ok: true } : refused(reasonIn(socket));
}

/** OpenSSL's own message, which Node stores beside its code if it can. */
function reasonIn(socket: TLSSocket): string {
  const { ssl } = socket as { ssl?: { verifyError?: () => Error | null | undefined } };
  const words = ssl?.verifyError?.()?.message;
  const code = String(socket.authorizationError);
  return words === undefined ? code : `${words} (${code})`;
}

const refused = (reason: string): PreflightVerdict => ({
  ok: false,
  code: 'ERR_VERIFY_PREFLIGHT',
  message: `OpenSSL refuses the pair in a handshake with a server that trusts this bundle: ${reason}`,
});

const failed = (reason: string): PreflightVerdict => ({
  ok: false,
  code: 'ERR_VERIFY_PREFLIGHT_FAILED',
  message: `the preflight handshake failed to run, and nothing is published without it: ${reason}`,
});

/** The reason in an OpenSSL error, which quotes nothing of its input. */
function textOf(error: unknown): string {
  const { code, reason, message } = error as { code?: string; reason?: string; message?: string };
  return [reason ?? message ?? String(error), code && `(${code})`].filter((part) => part).join(' ');
}
