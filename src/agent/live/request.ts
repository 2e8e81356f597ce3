import { Readable } from 'node:stream';
import { bounded } from '../../async/bounded.ts';
import type { Clock } from '../../async/clock.ts';
import { limitedTo } from '../../async/linked-signal.ts';
import type { LoadingRequest } from '../../gateway/loading.ts';
import { lines } from '../../kube/client.ts';
import { type JsonLimits, parseJson } from '../../mesh/input/untrusted-text.ts';
import { localCause } from '../../mesh/local-cause.ts';

/** Diagnostics of a gateway with thousands of routes take seconds to render. */
const TIMEOUT_MS = 10_000;

/** Some kilobytes for each route, and some dozens of values. */
const LARGEST_ANSWER = 16 * 1024 * 1024;
const LIMITS: JsonLimits = { depth: 32, values: 500_000 };

/** Metrics have some kilobytes of text for each cluster, and a few lines that are wanted. */
const LONGEST_TEXT = 256 * 1024 * 1024;
const LONGEST_LINE = 64 * 1024;

/** One GET: the JSON, or the wanted lines. An error is returned, not thrown. */
export async function askGateway(
  { url, wanted }: LoadingRequest,
  clock: Clock,
  signal: AbortSignal,
): Promise<{ readonly body: unknown } | { readonly failure: string }> {
  using late = limitedTo(clock, TIMEOUT_MS, () => new Error(`no answer within ${TIMEOUT_MS / 1000} s`), signal);
  try {
    const accept = wanted ? 'text/plain' : 'application/json';
    const response = await fetch(url, { headers: { accept }, signal: late.signal });
    if (!response.ok) return { failure: `${url.origin} answers ${response.status}` };
    if (wanted && response.body) return { body: await wantedLines(Readable.fromWeb(response.body), wanted) };
    const bytes = response.body && (await bounded(response.body, LARGEST_ANSWER));
    if (!bytes) return { failure: `${url.origin} answers with more than ${LARGEST_ANSWER / 1024 / 1024} MiB` };
    return { body: parseJson(bytes.toString(), LIMITS) };
  } catch (error) {
    if (late.signal.aborted) return { failure: `${url.origin}: ${(late.signal.reason as Error).message}` };
    if (error instanceof RangeError) return { failure: `${url.origin} answers with ${error.message}` };
    if (error instanceof SyntaxError) return { failure: `${url.origin} answers something that is not JSON` };
    const { message, cause } = error as Error;
    const { code, message: said = message } = (cause ?? {}) as NodeJS.ErrnoException;
    return { failure: `${url.origin}: ${localCause(`${code} ${said}`) ?? 'the request failed'}` };
  }
}

/** Keeps as much as an answer in JSON may have. */
async function wantedLines(stream: Readable, wanted: readonly string[]): Promise<string[]> {
  const kept: string[] = [];
  let [read, size] = [0, 0];
  for await (const line of lines(stream, LONGEST_LINE)) {
    read += line.length;
    if (read > LONGEST_TEXT) throw new RangeError(`more than ${LONGEST_TEXT / 1024 / 1024} MiB`);
    if (!wanted.some((word) => line.startsWith(word))) continue;
    size += line.length;
    if (size > LARGEST_ANSWER)
      throw new RangeError(`more than ${LARGEST_ANSWER / 1024 / 1024} MiB of the lines asked for`);
    kept.push(line);
  }
  return kept;
}
