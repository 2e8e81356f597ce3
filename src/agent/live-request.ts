import type { Clock } from '../mesh/clock.ts';
import { limitedTo } from '../mesh/linked-signal.ts';

/** Diagnostics of a gateway with thousands of Mappings take seconds to render. */
const TIMEOUT_MS = 10_000;

/** One GET; what goes wrong is told, not thrown. */
export async function askGateway(
  url: URL,
  clock: Clock,
  signal: AbortSignal,
): Promise<{ readonly body: unknown } | { readonly failure: string }> {
  using late = limitedTo(clock, TIMEOUT_MS, () => new Error(`no answer within ${TIMEOUT_MS / 1000} s`), signal);
  try {
    const response = await fetch(url, { headers: { accept: 'application/json' }, signal: late.signal });
    if (!response.ok) return { failure: `${url.origin} answers ${response.status}` };
    return { body: await response.json() };
  } catch (error) {
    const { message, cause } = error as Error;
    const why = late.signal.aborted
      ? String((late.signal.reason as Error).message)
      : ((cause as Error | undefined)?.message ?? message);
    return { failure: `${url.origin}: ${why}` };
  }
}
