import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { GATEWAY_API } from './examples.ts';

export const PLACES = ['sandbox', 'Envoy', 'meshes', 'agent', 'Envoy Gateway'] as const;
export type Place = (typeof PLACES)[number];

export interface Judgement {
  readonly code: string;
  /** Where a test shows the harm. */
  readonly places: readonly Place[];
  /** Why there is no test, or ''. */
  readonly otherwise: string;
}

/** The table at the end of docs/checks.md. */
export function readJudgements(): readonly Judgement[] {
  const page = readFileSync(new URL('../../docs/checks.md', import.meta.url), 'utf8');
  const [, table = ''] = page.split('# How each check is tested');
  return [...table.matchAll(/^\| (MC\d{4}) \|(.*)\|$/gm)].map(([, code = '', rest = '']) => {
    const cells = rest.split('|').map((cell) => cell.trim());
    return {
      code,
      places: PLACES.filter((_, at) => cells[at] === 'x'),
      otherwise: cells[PLACES.length] ?? '',
    };
  });
}

/** Asserts that the table names exactly these codes for this place, among those of Gateway API or the others. */
export function checkJudged(place: Place, codes: ReadonlySet<string>, ofGatewayApi = false): void {
  const said = readJudgements().filter(
    ({ code, places }) => places.includes(place) && GATEWAY_API.test(code) === ofGatewayApi,
  );
  assert.deepEqual(said.map(({ code }) => code).sort(), [...codes].sort());
}
