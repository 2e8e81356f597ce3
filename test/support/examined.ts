import { systemClock } from '../../src/async/clock.ts';
import type { Checking } from '../../src/mesh/adapter.ts';
import { type ExaminedCheck, Examiner, type ExaminerOptions } from '../../src/mesh/examiner.ts';

/** An adapter's report to doctor about its mesh. */
export async function examined(
  opened: Checking,
  options: Partial<ExaminerOptions> = {},
): Promise<readonly ExaminedCheck[]> {
  const checks: ExaminedCheck[] = [];
  await opened.check(
    new Examiner({
      clock: systemClock,
      limitMs: 20_000,
      issue: true,
      here: true,
      signal: new AbortController().signal,
      tell: (check) => checks.push(check),
      ...options,
    }),
  );
  return checks;
}

export const brief = (checks: readonly ExaminedCheck[]): string[] =>
  checks.map(({ code, state }) => `${code} ${state}`);
