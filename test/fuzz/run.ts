import type { GoJudge, JudgeVerdict, OpensslJudge } from '../peers/servers/x509-judges.ts';
import { type Case, makeCase } from './cases.ts';
import { type Opinion, opinionOn } from './ours.ts';

/** As many questions are asked at once: enough that no judge waits for another. */
const BATCH = 64;

export interface Judged {
  readonly at: Case;
  readonly ours: Opinion;
  readonly openssl: JudgeVerdict;
  readonly go: JudgeVerdict;
}

export interface Judges {
  readonly openssl: OpensslJudge;
  readonly go: GoJudge;
}

export interface FuzzOptions {
  readonly judges: Judges;
  readonly cases: number;
  /** Seeds count from here. */
  readonly from: number;
  readonly onBatch?: (judged: readonly Judged[]) => Promise<void> | void;
}

export interface FuzzResult {
  readonly cases: number;
  readonly accepted: { readonly ours: number; readonly openssl: number; readonly go: number; readonly all: number };
  readonly disagreements: readonly Judged[];
}

/** Makes the cases, asks all judges, and keeps those on which they differ. */
export async function fuzz({ judges, cases, from, onBatch }: FuzzOptions): Promise<FuzzResult> {
  const accepted = { ours: 0, openssl: 0, go: 0, all: 0 };
  const disagreements: Judged[] = [];
  for (let done = 0; done < cases; done += BATCH) {
    const seeds = Array.from({ length: Math.min(BATCH, cases - done) }, (_, n) => from + done + n);
    const judged = await Promise.all(seeds.map((seed) => judge(makeCase(seed, Date.now()), judges)));
    for (const one of judged) {
      const votes = [one.ours.ok, one.openssl.ok, one.go.ok];
      if (one.ours.ok) accepted.ours += 1;
      if (one.openssl.ok) accepted.openssl += 1;
      if (one.go.ok) accepted.go += 1;
      if (votes.every(Boolean)) accepted.all += 1;
      if (isDisagreement(one)) disagreements.push(one);
    }
    await onBatch?.(judged);
  }
  return { cases, accepted, disagreements };
}

/** Accepted by us and refused by one of the others, or refused by us alone. */
export const isDisagreement = ({ ours, openssl, go }: Judged): boolean =>
  ours.ok ? !(openssl.ok && go.ok) : openssl.ok && go.ok;

export async function judge(at: Case, judges: Judges): Promise<Judged> {
  const { chain, roots, key } = at;
  const openssl = judges.openssl.judge({ chain, roots, key });
  const go = judges.go.judge({ chain, roots, key, handshake: true });
  // While the judges work.
  const ours = opinionOn(at, Date.now());
  return { at, ours, openssl: await openssl, go: await go };
}

/** The fewest changes with which the judges still differ in the same way; asks anew for each change that is left out. */
export async function shrink(found: Judged, judges: Judges): Promise<Judged> {
  let smallest = found;
  for (const label of found.at.labels) {
    const fewer = smallest.at.labels.filter((one) => one !== label);
    const other = await judge(makeCase(found.at.seed, Date.now(), fewer), judges);
    if (kindOf(other) === kindOf(found)) smallest = other;
  }
  return smallest;
}

const kindOf = (one: Judged): string => [one.ours.ok, one.ours.code, one.openssl.ok, one.go.ok].join();

/** All that somebody needs to see the case again. */
export function describe({ at, ours, openssl, go }: Judged): string {
  const verdict = (who: string, ok: boolean, why: string) => `  ${who}: ${ok ? 'accepted' : `refused (${why})`}`;
  return [
    `seed ${at.seed}: ${at.labels.join(' + ') || 'no change'}`,
    verdict('meshcert', ours.ok, `${ours.code}: ${ours.message}`),
    verdict('OpenSSL', openssl.ok, `${openssl.stage}: ${openssl.reason}`),
    verdict('Go', go.ok, `${go.stage}: ${go.reason}`),
  ].join('\n');
}
