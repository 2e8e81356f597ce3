import { knipConfig, tscConfig } from './check/configs.ts';
import { gatewayNames } from './check/gateway-names.ts';
import { meshNames } from './check/mesh-names.ts';
import { slowPatterns } from './check/patterns.ts';
import { roomFindings } from './check/rooms.ts';
import { sizes } from './check/sizes.ts';
import { spreadFindings } from './check/spreads.ts';
import { structureFindings } from './check/structure.ts';
import { registryHosts, tracesOfMachine } from './check/traces.ts';
import { usingCaughtInLoops } from './check/using.ts';
import { capture } from './run.ts';
import { ROOT, trackedBelow } from './tree.ts';

interface Result {
  readonly ok: boolean;
  /** Shown when it is not ok. */
  readonly output: string;
}

const command =
  (name: string, ...args: string[]) =>
  async (): Promise<Result> => {
    const { code, output } = await capture('npx', ['--no-install', name, ...args]);
    return { ok: code === 0, output };
  };

const findings = (found: readonly string[]): Result => ({ ok: found.length === 0, output: found.join('\n') });

const PRODUCT_ISSUES = ['--no-config-hints', '--include', 'files,exports,types,enumMembers'];

const checks: Readonly<Record<string, () => Promise<Result>>> = {
  types: command('tsc', '-p', tscConfig(ROOT)),
  'lint, format': command('biome', 'ci', '--colors=off', '--error-on-warnings', ...trackedBelow(ROOT)),
  'dead exports, dependencies': command('knip', '--config', knipConfig(ROOT, 'knip.json'), '--no-progress'),
  'exports that only tests use': command(
    'knip',
    ...['--config', knipConfig(ROOT, 'knip.product.json'), '--no-progress', ...PRODUCT_ISSUES],
  ),
  'generated files': command('tsx', 'scripts/gen.ts', '--check'),
  'using in loops': async () => findings(usingCaughtInLoops(ROOT)),
  'import rules': async () => findings(roomFindings(ROOT)),
  'spreads of dependencies': async () => findings(spreadFindings(ROOT)),
  'cycles, names': async () => findings(structureFindings(ROOT)),
  'mesh names outside adapters': async () => findings(meshNames(ROOT)),
  'gateway names outside gateways': async () => findings(gatewayNames(ROOT)),
  'regular expressions in linear time': async () => findings(await slowPatterns(ROOT)),
  'traces of a machine': async () => {
    const { output } = await capture('npm', ['config', 'get', 'registry']);
    return findings(tracesOfMachine(ROOT, { hosts: registryHosts(process.env, output.trim()) }));
  },
};

const wanted = process.argv.slice(2);
let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  if (wanted.length > 0 && !wanted.some((word) => name.includes(word))) continue;
  const start = performance.now();
  const { ok, output } = await check();
  if (!ok) {
    failed += 1;
    process.stdout.write(`\n${output.trimEnd()}\n\n`);
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  process.stdout.write(`${ok ? 'ok  ' : 'FAIL'}  ${name} (${seconds} s)\n`);
}
if (wanted.length === 0)
  process.stdout.write(
    sizes(ROOT)
      .map((line) => `${line}\n`)
      .join(''),
  );
process.stdout.write(failed === 0 ? 'all checks passed\n' : `${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
