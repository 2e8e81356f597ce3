import { parseArgs } from 'node:util';
import { startGoJudge, startOpensslJudge } from '../peers/servers/x509-judges.ts';
import { knownKind } from './kinds.ts';
import { describe, type FuzzResult, fuzz, type Judged, shrink } from './run.ts';

const USAGE = `usage: npm run fuzz -- [--cases N] [--seed FROM] [--only SEED]

Makes signed certificates that differ from good ones, and compares what meshcert, OpenSSL and Go say of each.
--only judges one case and prints its certificates.`;

/** Of each kind that is not known, as many are shrunk and shown. */
const SHOWN = 3;

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '20000' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

async function main(): Promise<number> {
  await using go = await startGoJudge();
  await using openssl = startOpensslJudge();
  const judges = { go, openssl };
  const cases = values.only === undefined ? Number(values.cases) : 1;
  const result = await fuzz({
    judges,
    cases,
    from: Number(values.only ?? values.seed),
    onBatch: values.only === undefined ? progress(cases) : (judged) => judged.forEach(show),
  });
  process.stdout.write(`${table(result)}\n`);
  const unknown = result.disagreements.filter((one) => !knownKind(one));
  for (const [kind, group] of groups(unknown)) {
    process.stdout.write(`\n${group.length} of a kind that is not known: ${kind}\n`);
    for (const one of group.slice(0, SHOWN)) process.stdout.write(`${describe(await shrink(one, judges))}\n`);
  }
  return unknown.length === 0 ? 0 : 1;
}

function show(one: Judged): void {
  const { chain, roots, key } = one.at;
  process.stdout.write(`${describe(one)}\n\nchain:\n${chain}\nroots:\n${roots}\nkey (of this test alone):\n${key}\n`);
}

function progress(cases: number): (judged: readonly Judged[]) => void {
  let [done, told] = [0, 0];
  return ({ length }) => {
    done += length;
    if (done < told + cases / 20) return;
    told = done;
    process.stderr.write(`${done} of ${cases}\n`);
  };
}

function table({ cases, accepted, disagreements }: FuzzResult): string {
  const count = (test: (one: Judged) => boolean) => disagreements.filter(test).length;
  const rows: readonly (readonly [string, number])[] = [
    ['cases', cases],
    ['accepted by meshcert', accepted.ours],
    ['accepted by OpenSSL', accepted.openssl],
    ['accepted by Go', accepted.go],
    ['accepted by all three', accepted.all],
    ['accepted by meshcert, refused by OpenSSL', count(({ ours, openssl }) => ours.ok && !openssl.ok)],
    ['accepted by meshcert, refused by Go', count(({ ours, go }) => ours.ok && !go.ok)],
    ['accepted by meshcert, refused by both', count(({ ours, openssl, go }) => ours.ok && !openssl.ok && !go.ok)],
    ['refused by meshcert, accepted by both', count(({ ours }) => !ours.ok)],
    ['of a kind that is not known', count((one) => !knownKind(one))],
  ];
  const counts = rows.map(([what, n]) => `| ${what} | ${n} |`);
  const kinds = new Map<string, number>();
  for (const one of disagreements) {
    const kind = knownKind(one);
    if (kind) kinds.set(kind.what, (kinds.get(kind.what) ?? 0) + 1);
  }
  const known = [...kinds].map(([what, n]) => `| ${what} | ${n} |`);
  return ['| | |', '|---|---|', ...counts, '', '| known kind | cases |', '|---|---|', ...known].join('\n');
}

/** By what we and the judges say; the largest first. */
function groups(judged: readonly Judged[]): [string, readonly Judged[]][] {
  const found = new Map<string, Judged[]>();
  for (const one of judged) {
    const { ours, openssl, go } = one;
    const said = ours.ok
      ? `accepted, OpenSSL ${openssl.reason ?? 'accepts'}, Go ${shortened(go.reason ?? 'accepts')}`
      : `refused with ${ours.code}`;
    found.set(said, [...(found.get(said) ?? []), one]);
  }
  return [...found].sort(([, a], [, b]) => b.length - a.length);
}

const shortened = (reason: string): string => reason.replace(/certificate \d+: /, '').slice(0, 60);

if (values.help) process.stdout.write(`${USAGE}\n`);
else process.exitCode = await main();
