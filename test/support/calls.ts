import { readFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { findSourceMap } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Counts calls of functions by V8's own coverage, so that the product needs nothing for it. */
export class Calls implements Disposable {
  readonly #session = new Session();

  static async counted(): Promise<Calls> {
    const calls = new Calls();
    calls.#session.connect();
    await calls.#session.post('Profiler.enable');
    await calls.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    return calls;
  }

  /** How often each of these was called since the last time: the name of a function, and the file that it is in. */
  async take<F extends string>(functions: Readonly<Record<F, string>>): Promise<Readonly<Record<F, number>>> {
    const { result } = await this.#session.post('Profiler.takePreciseCoverage');
    const all = result.flatMap(({ url, functions }) => functions.map((one) => ({ url, ...one })));
    const count = ([name, file]: [string, string]) => {
      // A bundle adds a number to a name that it has twice.
      const named = new RegExp(`^${name}\\d*$`);
      const found = all.filter(({ functionName }) => named.test(functionName));
      const own = found.filter(({ url, ranges }) => sourceOf(url, ranges[0]?.startOffset ?? 0).endsWith(file));
      return [name, own.reduce((sum, { ranges }) => sum + (ranges[0]?.count ?? 0), 0)];
    };
    return Object.fromEntries((Object.entries(functions) as [string, string][]).map(count)) as Record<F, number>;
  }

  [Symbol.dispose](): void {
    this.#session.disconnect();
  }
}

/** The file that this place in a script was compiled from. */
function sourceOf(url: string, offset: number): string {
  const map = url.startsWith('file:') && url.endsWith('.mjs') ? findSourceMap(url) : undefined;
  if (!map) return url;
  const lines = readFileSync(fileURLToPath(url), 'utf8').slice(0, offset).split('\n');
  const place = map.findEntry(lines.length - 1, lines.at(-1)?.length ?? 0);
  return 'originalSource' in place ? place.originalSource : url;
}
