import type { Judges, JudgeVerdict } from '../peers/servers/x509-judges.ts';
import { type Case, makeCase } from './cases.ts';
import { type Opinion, opinionOn } from './ours.ts';

/** Concurrent questions: enough that no judge waits for another. */
const BATCH = 64;
/** Number of cases that Envoy loads in one start. */
const LOADED_AT_ONCE = 200;

export interface Judged {
  readonly at: Case;
  readonly ours: Opinion;
  readonly openssl: JudgeVerdict;
  readonly go: JudgeVerdict;
}

export interface FuzzOptions {
  readonly judges: Judges;
  readonly cases: number;
  /** The first seed. */
  readonly from: number;
  /** Which of the accepted cases Envoy does not load, with its reason. */
  readonly notLoaded?: (cases: readonly Case[]) => Promise<ReadonlyMap<Case, string>>;
  readonly onBatch?: (judged: readonly Judged[]) => void;
}

export interface FuzzResult {
  readonly cases: number;
  readonly accepted: {
    /** By our checks, without the preflight handshake. */
    readonly checks: number;
    readonly ours: number;
    readonly openssl: number;
    readonly go: number;
    readonly all: number;
  };
  readonly disagreements: readonly Judged[];
  /** How many of those that we accept were given to Envoy, and which of them it does not load. */
  readonly loaded: number;
  readonly notLoaded: ReadonlyMap<Case, string>;
}

/** Makes the cases, asks all judges, and collects those on which they differ. */
export async function fuzz({ judges, cases, from, notLoaded, onBatch }: FuzzOptions): Promise<FuzzResult> {
  const accepted = { checks: 0, ours: 0, openssl: 0, go: 0, all: 0 };
  const disagreements: Judged[] = [];
  const refusedByEnvoy = new Map<Case, string>();
  let loaded = 0;
  let toLoad: Case[] = [];
  const load = async () => {
    loaded += toLoad.length;
    for (const [at, why] of (await notLoaded?.(toLoad)) ?? []) refusedByEnvoy.set(at, why);
    toLoad = [];
  };
  for (let done = 0; done < cases; done += BATCH) {
    const seeds = Array.from({ length: Math.min(BATCH, cases - done) }, (_, n) => from + done + n);
    const judged = await Promise.all(seeds.map((seed) => judge(makeCase(seed, Date.now()), judges)));
    for (const one of judged) {
      if (one.ours.checked) accepted.checks += 1;
      if (one.ours.ok) accepted.ours += 1;
      if (one.openssl.ok) accepted.openssl += 1;
      if (one.go.ok) accepted.go += 1;
      if (one.ours.ok && one.openssl.ok && one.go.ok) accepted.all += 1;
      if (isDisagreement(one)) disagreements.push(one);
      if (one.ours.ok) toLoad.push(one.at);
    }
    if (notLoaded && toLoad.length >= LOADED_AT_ONCE) await load();
    onBatch?.(judged);
  }
  if (notLoaded) await load();
  return { cases, accepted, disagreements, loaded, notLoaded: refusedByEnvoy };
}

/** Accepted by us and refused by one of the others, refused only by us, or refused only by the preflight handshake. */
export const isDisagreement = ({ ours, openssl, go }: Judged): boolean =>
  ours.ok ? !(openssl.ok && go.ok) : ours.checked || (openssl.ok && go.ok);

export async function judge(at: Case, judges: Judges): Promise<Judged> {
  const { chain, roots, key } = at;
  const [openssl, go, ours] = await Promise.all([
    judges.openssl.judge({ chain, roots, key }),
    judges.go.judge({ chain, roots, key, handshake: true }),
    opinionOn(at, Date.now()),
  ]);
  return { at, ours, openssl, go };
}

/** The fewest changes with which the judges still differ in the same way. */
export async function shrink(found: Judged, judges: Judges): Promise<Judged> {
  let smallest = found;
  for (const label of found.at.labels) {
    const fewer = smallest.at.labels.filter((one) => one !== label);
    const other = await judge(makeCase(found.at.seed, Date.now(), fewer), judges);
    if (votesOf(other) === votesOf(found)) smallest = other;
  }
  return smallest;
}

const votesOf = ({ ours, openssl, go }: Judged): string =>
  [ours.ok, ours.checked, ours.code, openssl.ok, openssl.partial, go.ok].join();

/** Everything needed to reproduce the case. */
export function describe({ at, ours, openssl, go }: Judged): string {
  const verdict = (who: string, ok: boolean, why: string) => `  ${who}: ${ok ? 'accepted' : `refused (${why})`}`;
  return [
    `seed ${at.seed}: ${at.labels.join(' + ') || 'no change'}`,
    verdict('meshcert', ours.ok, `${ours.code}: ${ours.message}`),
    verdict(
      'OpenSSL',
      openssl.ok,
      `${openssl.stage}: ${openssl.reason}${openssl.partial ? '; not with partial chains' : ''}`,
    ),
    verdict('Go', go.ok, `${go.stage}: ${go.reason}`),
  ].join('\n');
}

/** The certificates and the key of a case, which are used only in this test. */
export const pemsOf = ({ chain, roots, key }: Case): string => `chain:\n${chain}\nroots:\n${roots}\nkey:\n${key}`;
