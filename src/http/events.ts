import type { IncomingMessage, ServerResponse } from 'node:http';
import { isDeepStrictEqual } from 'node:util';
import { Trigger } from '../async/trigger.ts';
import type { PublicationStatus } from '../core/status.ts';
import { renderProblems, renderRow, renderSummary, SECURITY_HEADERS } from './page.ts';

import { type HttpOptions, keyOfEntry, readiness, type StatusEntry } from './source.ts';

/** Each stream costs a comparison of all entries at each change. */
const MOST_STREAMS = 32;
/** Changes within this time are sent together. */
const SETTLE_MS = 100;
/** Below the idle time-outs of proxies, commonly 60 s. */
const HEARTBEAT_MS = 15_000;

type Context = Pick<HttpOptions, 'source' | 'health' | 'version' | 'clock' | 'log'>;

/**
 * Server-sent events: `status` events whose data is `{ certificates, removed }`, first with everything, then with
 * what changed. With `?view=page`, the rows as the page shows them: `{ rows: [[key, html]…], removed, summary, problems }`.
 */
export class EventStreams {
  readonly #context: Context;
  readonly #open = new Map<ServerResponse, AbortController>();

  constructor(context: Context) {
    this.#context = context;
  }

  open(request: IncomingMessage, response: ServerResponse): void {
    if (request.method === 'HEAD' || this.#open.size >= MOST_STREAMS) {
      response.writeHead(request.method === 'HEAD' ? 200 : 503, { ...SECURITY_HEADERS, 'Retry-After': '30' });
      response.end();
      return;
    }
    response.writeHead(200, { ...SECURITY_HEADERS, 'Content-Type': 'text/event-stream; charset=utf-8' });
    const controller = new AbortController();
    this.#open.set(response, controller);
    response.once('close', () => {
      controller.abort(new Error('stream closed'));
      this.#open.delete(response);
    });
    const forPage = new URLSearchParams(request.url?.split('?')[1]).get('view') === 'page';
    this.#run(response, forPage, controller.signal).catch((error: unknown) => {
      if (!controller.signal.aborted) this.#context.log.error({ err: error }, 'a stream of events failed');
      response.destroy();
    });
  }

  close(): void {
    for (const [response, controller] of this.#open) {
      controller.abort(new Error('server stopped'));
      response.end();
    }
  }

  async #run(response: ServerResponse, forPage: boolean, signal: AbortSignal): Promise<void> {
    const { source, clock } = this.#context;
    const changed = new Trigger();
    const unsubscribe = source.subscribe(() => changed.fire());
    const sent = new Map<string, PublicationStatus>();
    let first = true;
    try {
      while (!signal.aborted) {
        const message = this.#difference(sent, forPage, first);
        if (message) await write(response, `event: status\ndata: ${JSON.stringify(message)}\n\n`, signal);
        else await write(response, ': still here\n\n', signal);
        first = false;
        await firstOf(changed, HEARTBEAT_MS, clock, signal);
        await clock.sleep(SETTLE_MS, signal);
      }
    } finally {
      unsubscribe();
    }
  }

  /** The changes since the last message; undefined when there are none, except for the first message. */
  #difference(sent: Map<string, PublicationStatus>, forPage: boolean, first: boolean): object | undefined {
    const { source, clock, version } = this.#context;
    const entries = source.all();
    const fresh: StatusEntry[] = [];
    for (const entry of entries) {
      const key = keyOfEntry(entry);
      const before = sent.get(key);
      if (before === entry.status) continue;
      sent.set(key, entry.status);
      if (!isDeepStrictEqual(before, entry.status)) fresh.push(entry);
    }
    const present = new Set(entries.map(keyOfEntry));
    const removed = [...sent.keys()].filter((key) => !present.has(key));
    for (const key of removed) sent.delete(key);
    if (!first && fresh.length === 0 && removed.length === 0) return undefined;
    if (!forPage) return { certificates: fresh, removed };
    const state = { ...readiness(this.#context.health(), entries), version, now: clock.now() };
    const rows = fresh.map((entry) => [keyOfEntry(entry), renderRow(entry, state.now).text]);
    return { rows, removed, summary: renderSummary(entries, state).text, problems: renderProblems(entries).text };
  }
}

/** Waits for the change or the time, and cancels the other wait. */
async function firstOf(changed: Trigger, ms: number, clock: Context['clock'], signal: AbortSignal): Promise<void> {
  const done = new AbortController();
  const both = AbortSignal.any([signal, done.signal]);
  try {
    await Promise.race([changed.wait(both), clock.sleep(ms, both)]);
  } finally {
    done.abort(new Error('over'));
  }
}

/** Resolves when the client can take more: a slow reader slows only its own stream. */
function write(response: ServerResponse, text: string, signal: AbortSignal): Promise<void> {
  if (response.write(text)) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    response.once('drain', () => {
      signal.removeEventListener('abort', abort);
      resolve();
    });
  });
}
