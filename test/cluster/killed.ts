import { startCluster } from './cluster.ts';

/** Killed by its test: a run that has no chance to clean up. */
await startCluster();
process.stdout.write(`${process.pid}\n`);
setInterval(() => {}, 1_000_000);
