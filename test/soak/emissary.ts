import { runTraffic } from '../peers/parts/traffic.ts';

/** As long as the longest run against this gateway that its own project reports. */
const FORTY_MINUTES = 2_400_000;
/** Per minute, once settled. */
const FLAT_BYTES = 256 * 1024;

/** Three meshes behind Emissary's rules; true: nothing failed, and the agent did not grow. */
export async function emissary(durationMs = FORTY_MINUTES): Promise<boolean> {
  const seen = await runTraffic(durationMs);
  console.log(seen.line);
  for (const problem of [...seen.failures, ...seen.violations]) console.error(problem);
  if (seen.rss.slopePerMinute > FLAT_BYTES) console.error('the memory of the agent grows');
  return seen.failed === 0 && seen.violations.length === 0 && seen.rss.slopePerMinute <= FLAT_BYTES;
}
