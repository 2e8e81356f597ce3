/** Of one quantity, over the repetitions of one run. */
export interface Summary {
  readonly min: number;
  readonly median: number;
  readonly max: number;
  /** (max − min) / median: how much of a difference is noise. */
  readonly spread: number;
  readonly count: number;
}

export function summarise(values: readonly number[]): Summary {
  const sorted = [...values].sort((a, b) => a - b);
  const [min = Number.NaN] = sorted;
  const max = sorted.at(-1) ?? Number.NaN;
  const median = quantile(sorted, 0.5);
  return { min, median, max, spread: (max - min) / median, count: sorted.length };
}

/** Linear between neighbours; `q` from 0 to 1. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

/** Of the least-squares line through these points: y for one of x. */
export function slope(x: readonly number[], y: readonly number[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [middleX, middleY] = [mean(x), mean(y)];
  const above = x.reduce((sum, value, at) => sum + (value - middleX) * ((y[at] ?? Number.NaN) - middleY), 0);
  return above / x.reduce((sum, value) => sum + (value - middleX) ** 2, 0);
}

/** Runs both sides in turn, so that other load on the machine affects both equally; one throwaway round comes first. */
export async function interleaved<A, B>(
  rounds: number,
  ours: () => Promise<A> | A,
  theirs: () => Promise<B> | B,
): Promise<{ readonly ours: A[]; readonly theirs: B[] }> {
  await ours();
  await theirs();
  const all: { ours: A[]; theirs: B[] } = { ours: [], theirs: [] };
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 0) all.ours.push(await ours());
    all.theirs.push(await theirs());
    if (round % 2 === 1) all.ours.push(await ours());
  }
  return all;
}

/** Does it for each number from `from` to below `count`, `lanes` at a time. */
export async function inLanes(
  lanes: number,
  count: number,
  act: (at: number) => Promise<unknown>,
  from = 0,
): Promise<void> {
  let next = from;
  const lane = async () => {
    for (let at = next++; at < count; at = next++) await act(at);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}
