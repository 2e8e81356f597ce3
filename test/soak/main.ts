import { runTraffic } from '../peers/parts/traffic.ts';

/** As long as the longest run against this gateway that its own project reports. */
const FORTY_MINUTES = 2_400_000;
/** Per minute, once settled. */
const FLAT_BYTES = 256 * 1024;

const seen = await runTraffic(Number(process.env.MESHCERT_TRAFFIC_MS ?? FORTY_MINUTES));
console.log(seen.line);
for (const problem of [...seen.failures, ...seen.violations]) console.error(problem);
if (seen.rss.slopePerMinute > FLAT_BYTES) console.error('the memory of the agent grows');
const good = seen.failed === 0 && seen.violations.length === 0 && seen.rss.slopePerMinute <= FLAT_BYTES;
process.exitCode = good ? 0 : 1;
