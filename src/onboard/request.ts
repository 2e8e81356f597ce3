import { request as requestPlain } from 'node:http';
import { request as requestTls } from 'node:https';
import type { Clock } from '../async/clock.ts';
import type { RouteUpstream } from '../gateway/onboarding.ts';

/** What a client of the gateway received: a status, or why there is none. */
export type OnboardAnswer = { readonly status: number } | { readonly failure: string };

const TIMEOUT_MS = 5000;

/** Sends the gateway one request that a route serves, over a new connection. */
export async function ask(
  gatewayUrl: string,
  { path, host }: NonNullable<RouteUpstream['request']>,
  clock: Clock,
  signal: AbortSignal,
): Promise<OnboardAnswer> {
  const url = new URL(path, gatewayUrl);
  const headers = host === undefined ? {} : { host };
  const late = new AbortController();
  const cancel = clock.after(TIMEOUT_MS, () => late.abort(new Error(`no answer within ${TIMEOUT_MS} ms`)));
  const send = url.protocol === 'https:' ? requestTls : requestPlain;
  try {
    return await new Promise<OnboardAnswer>((resolve) => {
      const either = AbortSignal.any([signal, late.signal]);
      const sent = send(url, { headers, agent: false, signal: either, rejectUnauthorized: false }, (response) => {
        response.resume();
        response.once('end', () => resolve({ status: response.statusCode ?? 0 }));
        response.once('error', (error) => resolve({ failure: error.message }));
      });
      sent.once('error', (error) =>
        resolve({ failure: late.signal.aborted ? String(late.signal.reason) : error.message }),
      );
      sent.end();
    });
  } finally {
    cancel();
  }
}

/** Statuses of the gateway itself: no upstream answered. */
const GATEWAY_FAILURES: ReadonlySet<number> = new Set([502, 503, 504]);

/** Whether an answer shows that a move broke something, given the answer before it. */
export function isWorse(after: OnboardAnswer, before: OnboardAnswer): boolean {
  if ('failure' in after) return true;
  if (GATEWAY_FAILURES.has(after.status)) return true;
  return after.status >= 500 && 'status' in before && before.status < 500;
}

export const describeAnswer = (answer: OnboardAnswer): string =>
  'failure' in answer ? answer.failure : `HTTP ${answer.status}`;
