import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MUTANTS, type Mutant } from './mutants.ts';

/**
 * Disables each rule of publication and of verification in turn, in a copy of the sources, and runs the model, the fuzz
 * or a real Envoy on it. A rule whose removal goes unnoticed is not tested: exit 1. Arguments choose mutants by a part of their rule
 * or title.
 */
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const RUNS = process.env.MESHCERT_MODEL_RUNS ?? '400';
const SEED = process.env.MESHCERT_MODEL_SEED ?? '1';
const AT_ONCE = 2;

const SUITES = {
  model: ['test/model/publication.test.ts'],
  fuzz: ['test/fuzz/main.ts', '--cases', process.env.MESHCERT_FUZZ_CASES ?? '2000', '--no-envoy'],
  envoy: ['--test', '--test-name-pattern=is refused by us', 'test/peers/envoy-alone.test.ts'],
  federation: ['--test', 'src/core/upstream-trust.test.ts', 'test/e2e/upstream-trust.test.ts'],
  preflight: ['--test', 'src/preflight/preflight.test.ts', 'test/e2e/preflight.test.ts'],
} as const;

interface Verdict {
  readonly mutant: Mutant;
  readonly found: string | undefined;
  readonly seconds: number;
}

const wanted = process.argv.slice(2);
const chosen = MUTANTS.filter(
  ({ rule, title }) => wanted.length === 0 || wanted.some((part) => `${rule} ${title}`.includes(part)),
);
const queue = [...chosen];
const verdicts: Verdict[] = [];
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (let mutant = queue.shift(); mutant; mutant = queue.shift()) {
      const verdict = await judge(mutant);
      verdicts.push(verdict);
      process.stderr.write(`${verdict.found ? 'found   ' : 'SURVIVED'} ${mutant.title} (${verdict.seconds} s)\n`);
    }
  }),
);

const order = new Map(MUTANTS.map((mutant, at) => [mutant, at]));
verdicts.sort((a, b) => (order.get(a.mutant) ?? 0) - (order.get(b.mutant) ?? 0));
process.stdout.write('| rule | removed | counterexample |\n|---|---|---|\n');
for (const { mutant, found } of verdicts) {
  process.stdout.write(`| ${mutant.rule} | ${mutant.title} | ${found ?? '**none**'} |\n`);
}
const survivors = verdicts.filter(({ found }) => found === undefined);
process.stdout.write(
  `\n${verdicts.length - survivors.length} of ${verdicts.length} found, seed ${SEED}, up to ${RUNS} runs each\n`,
);
process.exitCode = survivors.length > 0 || verdicts.length === 0 ? 1 : 0;

async function judge(mutant: Mutant): Promise<Verdict> {
  const dir = mkdtempSync(join(tmpdir(), 'meshcert-mutant-'));
  const started = process.hrtime.bigint();
  try {
    for (const part of ['src', 'adapters', 'protos', 'scripts', 'test', 'package.json', 'tsconfig.json']) {
      cpSync(join(ROOT, part), join(dir, part), { recursive: true });
    }
    symlinkSync(join(ROOT, 'node_modules'), join(dir, 'node_modules'));
    const file = join(dir, mutant.file);
    const source = readFileSync(file, 'utf8');
    if (source.split(mutant.from).length !== 2) {
      throw new Error(
        `${mutant.file} does not hold this exactly once, correct the mutant "${mutant.title}": ${mutant.from}`,
      );
    }
    writeFileSync(
      file,
      source.replace(mutant.from, () => mutant.to),
    );
    const { code, output } = await run(dir, mutant.suite ?? 'model');
    const found = /(?:after these \d+ steps: |of a kind that is not known: |^ *not ok \d+ - )(.*)/m.exec(output)?.[1];
    if (code !== 0 && found === undefined)
      throw new Error(`the mutant "${mutant.title}" broke the model itself:\n${output.slice(-2000)}`);
    const seconds = Number((process.hrtime.bigint() - started) / 1_000_000_000n);
    return { mutant, found: code === 0 ? undefined : found, seconds };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function run(cwd: string, suite: keyof typeof SUITES): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, MESHCERT_MODEL_RUNS: RUNS, MESHCERT_MODEL_SEED: SEED, MESHCERT_MODEL_SHRINK: '0' };
    const child = spawn(process.execPath, ['--import', 'tsx', ...SUITES[suite]], { cwd, env });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += String(chunk)));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}
