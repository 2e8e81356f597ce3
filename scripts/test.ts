import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { PARTS_VARIABLE } from '../test/bench/parts/part.ts';
import { ROW_VARIABLE } from '../test/peers/build.ts';
import { BUNDLE_VARIABLE, builtBundle } from './built-bundle.ts';
import { nativeArchitecture } from './image/oci.ts';
import { CACHE, nodeOf } from './image/sources.ts';
import { run } from './run.ts';
import { bundleTests } from './test-bundle.ts';
import { testGroups } from './test-groups.ts';
import { longestFirst } from './test-order.ts';
import { filesBelow, ROOT } from './tree.ts';

const USAGE = `usage: npm test -- [FILTER…] [--node-test-option=…]
       npm run test:model -- [RUNS] [FILTER…]
       npm run test:peers -- [--newest] [FILTER…]
       npm run test:cluster -- [FILTER…]
       npx tsx scripts/test.ts all

A FILTER is part of a test file's path. What else starts with a dash goes to node --test. --newest tests with the newest
Kubernetes, Istio and Consul in place of the pinned ones (docs/support.md). --image-node, in every mode, runs the tests
by the Node.js of the image in place of this one.`;

/**
 * Number of runs of the model's property tests under test:model, some minutes' worth; the everyday suite runs fewer.
 */
const MODEL_RUNS = '10000';
const MINUTE_MS = 60_000;

const args = process.argv.slice(2);
const mode = ['model', 'peers', 'cluster', 'all'].includes(args[0] ?? '') ? args.shift() : 'quick';
const newest = args.includes('--newest');
const byImage = args.includes('--image-node');
const options = args.filter((arg) => arg.startsWith('-') && !['--newest', '--image-node'].includes(arg));
const runs = mode === 'model' && /^\d+$/.test(args[0] ?? '') ? args.shift() : MODEL_RUNS;
const filters = args.filter((arg) => !arg.startsWith('-'));

if (options.includes('--help') || options.includes('-h')) {
  process.stdout.write(`${USAGE}\n`);
} else if (newest && mode !== 'peers') {
  process.stderr.write(`--newest belongs to npm run test:peers\n\n${USAGE}\n`);
  process.exitCode = 2;
} else {
  process.exitCode = await main();
}

async function main(): Promise<number> {
  const files = filesBelow(ROOT, 'src', 'adapters', 'sandbox', 'scripts', 'test')
    .filter((file) => file.endsWith('.test.ts') && belongs(file))
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
  if (files.length === 0) {
    process.stderr.write(`no test file matches ${filters.join(', ') || mode}\n\n${USAGE}\n`);
    return 2;
  }
  if (newest) process.env[ROW_VARIABLE] = 'newest';
  const withPeers = mode === 'peers' || mode === 'cluster' || mode === 'all';
  // Built before the clock of any test runs; with a filter, only what those tests need is built.
  if (withPeers && filters.length === 0) {
    const code = await run(process.execPath, ['--import', 'tsx', 'test/peers/build.ts']);
    if (code !== 0) return code;
  }
  await using bundle = await bundleTests(testGroups(longestFirst(files)));
  const env = {
    ...process.env,
    [BUNDLE_VARIABLE]: await builtBundle(),
    [PARTS_VARIABLE]: bundle.parts,
    ...(mode === 'model' ? { MESHCERT_MODEL_RUNS: runs } : {}),
  };
  // A real root rotation takes minutes, ten thousand histories most of an hour on a busy machine; every other test has
  // less.
  const timeout = (mode === 'model' ? 90 : withPeers ? 30 : 5) * MINUTE_MS;
  // Many tests mostly wait: here for a held request or the end of a leaf, with real peers for most of their minutes. A
  // node of a cluster keeps the machine busy by itself.
  const concurrency = mode === 'cluster' ? 1 : availableParallelism() + (withPeers ? 2 : 1);
  const node = ['--enable-source-maps', '--test', `--test-concurrency=${concurrency}`, `--test-timeout=${timeout}`];
  const program = byImage ? join(await nodeOf(nativeArchitecture, CACHE), 'node') : process.execPath;
  return await run(program, [...node, ...options, ...bundle.files], env);
}

function belongs(file: string): boolean {
  const peers = file.startsWith('test/peers/');
  const cluster = file.startsWith('test/cluster/');
  if (mode === 'peers') return peers;
  if (mode === 'cluster') return cluster;
  if (mode === 'model') return file.startsWith('test/model/') || file.startsWith('test/property/');
  return mode === 'all' || !(peers || cluster);
}
