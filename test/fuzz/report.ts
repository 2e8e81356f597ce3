import type { Judges } from '../peers/servers/x509-judges.ts';
import { type Kind, knownKind } from './kinds.ts';
import { describe, type FuzzResult, type Judged, pemsOf, shrink } from './run.ts';

/** Number of cases that are shrunk and shown for each unknown kind. */
const SHOWN = 3;

/** Unexpected results: must be empty. */
export function unknownIn({ disagreements, notLoaded }: FuzzResult): number {
  const unknown = disagreements.filter((one) => !knownKind(one) || (isRefusedByBoth(one) && !isSkew(one)));
  return unknown.length + notLoaded.size;
}

/** The handshake must not be the only one that refuses what OpenSSL and Go both refuse. */
const isRefusedByBoth = ({ ours, openssl, go }: Judged): boolean =>
  ours.checked && !openssl.ok && !openssl.partial && !go.ok;

const isSkew = ({ openssl, go }: Judged): boolean =>
  /not yet valid/i.test(openssl.reason ?? '') && /not yet valid/i.test(go.reason ?? '');

/** Counts by judge, and a table of the disagreements. */
export function table(result: FuzzResult): string {
  const { cases, accepted, disagreements, loaded, notLoaded } = result;
  const count = (test: (one: Judged) => boolean) => disagreements.filter(test).length;
  const rows: readonly (readonly [string, number])[] = [
    ['cases', cases],
    ['accepted by our checks', accepted.checks],
    ['accepted by our checks and the preflight handshake', accepted.ours],
    ['accepted by OpenSSL', accepted.openssl],
    ['accepted by Go', accepted.go],
    ['accepted by all three', accepted.all],
    ['accepted by us, refused by OpenSSL', count(({ ours, openssl }) => ours.ok && !openssl.ok && !openssl.partial)],
    [
      'accepted by us, by OpenSSL only with partial chains',
      count(({ ours, openssl }) => ours.ok && openssl.partial === true),
    ],
    ['accepted by us, refused by Go', count(({ ours, go }) => ours.ok && !go.ok)],
    ['accepted by us and given to Envoy', loaded],
    ['of these not loaded by Envoy', notLoaded.size],
    ['refused by us, accepted by OpenSSL and Go', count(({ ours, openssl, go }) => !ours.ok && openssl.ok && go.ok)],
    ['refused by the preflight handshake alone', count(({ ours }) => !ours.ok && ours.checked)],
    ['accepted by our checks, refused by OpenSSL and Go', count(isRefusedByBoth)],
    ['of these because of the clock skew', count((one) => isRefusedByBoth(one) && isSkew(one))],
    ['of a kind that is not known', unknownIn(result)],
  ];
  const kinds = new Map<Kind, number>();
  for (const one of disagreements) {
    const kind = knownKind(one);
    if (kind) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return [
    '| | |\n|---|---|',
    ...rows.map(([what, n]) => `| ${what} | ${n} |`),
    '\n| known kind | cases |\n|---|---|',
    ...[...kinds].map(([{ what }, n]) => `| ${what} | ${n} |`),
  ].join('\n');
}

/** The unknown kinds, with the smallest cases that show them. */
export async function explain({ disagreements, notLoaded }: FuzzResult, judges: Judges): Promise<string> {
  const lines: string[] = [];
  const groups = new Map<string, Judged[]>();
  for (const one of disagreements) {
    if (knownKind(one) && (!isRefusedByBoth(one) || isSkew(one))) continue;
    const kind = summary(one);
    groups.set(kind, [...(groups.get(kind) ?? []), one]);
  }
  for (const [kind, group] of [...groups].sort(([, a], [, b]) => b.length - a.length)) {
    lines.push(`\n${group.length} of a kind that is not known: ${kind}`);
    const smallest = await Promise.all(group.slice(0, SHOWN).map((one) => shrink(one, judges)));
    lines.push(...smallest.map(describe));
    if (smallest[0]) lines.push(pemsOf(smallest[0].at));
  }
  for (const [at, why] of [...notLoaded].slice(0, 10 * SHOWN)) {
    lines.push(`\nnot loaded by Envoy: seed ${at.seed}: ${at.labels.join(' + ')}\n  ${why}\n${pemsOf(at)}`);
  }
  return lines.join('\n');
}

function summary({ ours, openssl, go }: Judged): string {
  const others = `OpenSSL: ${openssl.reason ?? 'accepted'}, Go: ${shortened(go.reason ?? 'accepted')}`;
  if (ours.ok) return `accepted by us; ${others}`;
  return ours.checked ? `refused by the preflight handshake alone: ${ours.message}` : `refused by us with ${ours.code}`;
}

const shortened = (reason: string): string => reason.replace(/certificate \d+: /, '').slice(0, 60);
