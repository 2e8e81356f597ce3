import { parseArgs } from 'node:util';
import { startGoJudge, startOpensslJudge } from '../peers/servers/x509-judges.ts';
import { crlTable, describeCrl, fuzzCrls, unknownCrls } from './crls.ts';
import { notLoaded } from './envoy.ts';
import { explain, table, unknownIn } from './report.ts';
import { describe, fuzz, type Judged, pemsOf } from './run.ts';

/** Envoy makes two handshakes for each set of CRLs. */
const CASES_FOR_CRLS = 20;

const USAGE = `usage: npm run fuzz -- [--cases N] [--seed FROM] [--only SEED] [--no-envoy]

Makes signed certificates that differ from good ones, and compares what meshcert, OpenSSL, Go and Envoy say of each.
Then does the same with a twentieth as many sets of CRLs.
Ends with 1 when they differ in a way that docs/reference/verification.md does not explain. --only judges one case and prints its
certificates.`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    allowNegative: true,
    options: {
      cases: { type: 'string', default: '20000' },
      seed: { type: 'string', default: '1' },
      only: { type: 'string' },
      envoy: { type: 'boolean', default: true },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  await using go = await startGoJudge();
  await using openssl = startOpensslJudge();
  const judges = { go, openssl };
  const cases = values.only === undefined ? Number(values.cases) : 1;
  const result = await fuzz({
    judges,
    cases,
    from: Number(values.only ?? values.seed),
    onBatch: values.only === undefined ? progress(cases) : (judged) => judged.forEach(show),
    ...(values.envoy ? { notLoaded } : {}),
  });
  process.stdout.write(`${table(result)}\n${await explain(result, judges)}\n`);
  if (values.only !== undefined || !values.envoy) return unknownIn(result) === 0 ? 0 : 1;
  const crls = await fuzzCrls(Math.ceil(cases / CASES_FOR_CRLS), Number(values.seed), go);
  const unknown = unknownCrls(crls);
  process.stdout.write(`${crlTable(crls)}\n${unknown.map(describeCrl).join('\n')}\n`);
  return unknownIn(result) + unknown.length === 0 ? 0 : 1;
}

const show = (one: Judged): boolean => process.stdout.write(`${describe(one)}\n\n${pemsOf(one.at)}\n`);

function progress(cases: number): (judged: readonly Judged[]) => void {
  let [done, shown] = [0, 0];
  return ({ length }) => {
    done += length;
    if (done < shown + cases / 20) return;
    shown = done;
    process.stderr.write(`${done} of ${cases}\n`);
  };
}

process.exitCode = await main();
