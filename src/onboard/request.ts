import { request as requestPlain } from 'node:http';
import { request as requestTls } from 'node:https';
import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { Clock } from '../async/clock.ts';
import type { RouteRequest } from '../gateway/gateway.ts';

/**
 * What a client of the gateway received: a status, an open TCP connection, or why there is neither. `unreachable`: the
 * gateway itself cannot be reached on this port, so nothing can be said about the route.
 */
export type OnboardAnswer =
  | { readonly status: number }
  | { readonly open: true }
  | { readonly failure: string; readonly unreachable?: true };

const TIMEOUT_MS = 5000;
/** Envoy ends a TCP connection as soon as it has no connection to the upstream: after a handshake at most. */
const HOLD_MS = 1000;

/** Sends the gateway what a route serves, over a new connection. */
export async function ask(
  gatewayUrl: string,
  request: RouteRequest,
  clock: Clock,
  signal: AbortSignal,
): Promise<OnboardAnswer> {
  const late = new AbortController();
  const cancel = clock.after(TIMEOUT_MS, () => late.abort(new Error(`no answer within ${TIMEOUT_MS} ms`)));
  const either = AbortSignal.any([signal, late.signal]);
  try {
    const answer = await ('port' in request
      ? knock(new URL(gatewayUrl).hostname, request, clock, either)
      : send(new URL(request.path, gatewayUrl), request, either));
    return 'failure' in answer && late.signal.aborted ? { ...answer, failure: String(late.signal.reason) } : answer;
  } finally {
    cancel();
  }
}

function send(
  url: URL,
  { method, host, headers: more }: Extract<RouteRequest, { readonly path: string }>,
  signal: AbortSignal,
): Promise<OnboardAnswer> {
  const headers = { ...more, ...(host === undefined ? {} : { host }) };
  const request = url.protocol === 'https:' ? requestTls : requestPlain;
  return new Promise((resolve) => {
    const options = { method, headers, agent: false, signal, rejectUnauthorized: false } as const;
    const sent = request(url, options, (response) => {
      response.resume();
      response.once('end', () => resolve({ status: response.statusCode ?? 0 }));
      response.once('error', (error) => resolve({ failure: error.message }));
    });
    sent.once('error', (error) => resolve({ failure: error.message }));
    sent.end();
  });
}

/** A connection that stays open for a while, or on which the upstream speaks first, reached the upstream. */
async function knock(
  gateway: string,
  { port, host }: Extract<RouteRequest, { readonly port: number }>,
  clock: Clock,
  signal: AbortSignal,
): Promise<OnboardAnswer> {
  const address = { host: gateway.replace(/^\[|\]$/g, ''), port };
  const socket =
    host === undefined ? connect(address) : connectTls({ ...address, servername: host, rejectUnauthorized: false });
  const abort = () => socket.destroy(new Error('no answer'));
  signal.addEventListener('abort', abort);
  let cancel = () => {};
  try {
    return await new Promise<OnboardAnswer>((resolve) => {
      let isConnected = false;
      socket.once('connect', () => {
        isConnected = true;
      });
      socket.once(host === undefined ? 'connect' : 'secureConnect', () => {
        cancel = clock.after(HOLD_MS, () => resolve({ open: true }));
      });
      socket.once('data', () => resolve({ open: true }));
      const ended = (why: string) =>
        resolve(
          isConnected ? { failure: `the gateway ended the connection (${why})` } : { failure: why, unreachable: true },
        );
      socket.once('error', ({ message }) => ended(message));
      socket.once('close', () => ended('without an error'));
    });
  } finally {
    cancel();
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
}

/** Statuses of the gateway itself: no upstream answered. */
const GATEWAY_FAILURES: ReadonlySet<number> = new Set([502, 503, 504]);

/** 0: served; 1: the upstream refuses the request; 2: the upstream fails; 3: no upstream answered. */
function severity(answer: OnboardAnswer): 0 | 1 | 2 | 3 {
  if ('failure' in answer) return 3;
  if ('open' in answer || answer.status < 400) return 0;
  if (answer.status < 500) return 1;
  return GATEWAY_FAILURES.has(answer.status) ? 3 : 2;
}

/** Whether no upstream answered. */
export const isBroken = (answer: OnboardAnswer): boolean => severity(answer) === 3;

/**
 * Whether an answer shows that a move broke something, given the answers to the same request before it. An error that
 * came before too is no worse; another one of the same kind is, such as 403 where 404 was.
 */
export function isWorse(after: OnboardAnswer, before: readonly OnboardAnswer[]): boolean {
  const now = severity(after);
  if (now === 0 || now === 3) return now === 3;
  if (before.some((one) => 'status' in one && 'status' in after && one.status === after.status)) return false;
  return now >= Math.min(...before.map(severity));
}

export const describeAnswer = (answer: OnboardAnswer): string => {
  if ('failure' in answer) return answer.failure;
  return 'open' in answer ? 'the connection stays open' : `HTTP ${answer.status}`;
};
