import { formatDuration } from '../../src/mesh/schema.ts';
import { GATEWAY_TITLES } from '../cluster/mesh.ts';
import type { DemoState, DemoSummary, MeshState } from './state.ts';

export interface Paint {
  readonly columns: number;
  readonly rows: number;
  readonly colours: boolean;
}

const BAR = 24;
const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;

interface ViewPart {
  readonly text: string;
  readonly ink?: keyof typeof CODES;
}

/** One line of text, or of coloured parts. */
type ViewLine = readonly ViewPart[];

const line = (text: string, ink?: keyof typeof CODES): ViewLine => [ink ? { text, ink } : { text }];
const BLANK: ViewLine = [];

/**
 * One frame of the demo, at most `rows` lines of at most `columns` characters. Events fill the rows that the meshes
 * leave; if even the meshes do not fit, the blank lines and then the last lines are omitted.
 */
export function frame(state: DemoState, now: number, { columns, rows, colours }: Paint): string[] {
  const seconds = Math.floor((now - state.startedAt) / 1000);
  const rotations = `${count(state.sum('rotations'), 'rotation')}, ${count(state.sum('rootRotations'), 'root rotation')}`;
  const head: ViewLine[] = [[{ text: 'meshcert demo', ink: 'bold' }, { text: `  ${seconds}s  ${rotations}` }], BLANK];
  const meshes = state.meshes.flatMap((mesh) => [...meshLines(mesh, now), BLANK]);
  const foot: ViewLine[] = [
    [
      { text: '█', ink: 'green' },
      { text: ' used  · left  │ renewal is due  ' },
      { text: 'green', ink: 'green' },
      { text: ' valid  ' },
      { text: 'yellow', ink: 'yellow' },
      { text: ' renewing  ' },
      { text: 'red', ink: 'red' },
      { text: ' expired' },
    ],
    line('Press Ctrl-C to stop.', 'dim'),
  ];
  const fixed = [...head, ...meshes, ...foot];
  const room = rows - fixed.length - 1;
  const events = room > 0 ? state.events.slice(-room).map((event) => line(eventText(event), 'dim')) : [];
  const whole = [...head, ...meshes, ...events, ...(events.length > 0 ? [BLANK] : []), ...foot];
  const fitting = whole.length <= rows ? whole : whole.filter((one) => one !== BLANK).slice(0, rows);
  return fitting.map((one) => draw(one, columns, colours));
}

function meshLines(mesh: MeshState, now: number): ViewLine[] {
  const { status } = mesh;
  const roots = count(status?.roots.length ?? 0, 'root');
  return [
    [{ text: mesh.mesh.padEnd(8), ink: 'bold' }, { text: ` ${status?.id ?? 'waiting for the first certificate'}` }],
    [{ text: '         ' }, ...bar(mesh, now)],
    [
      { text: '         ' },
      ...GATEWAY_TITLES.flatMap((gateway): ViewPart[] => {
        const { ok, failed } = mesh.by[gateway];
        return [
          { text: `${gateway} ` },
          { text: failed > 0 ? `${ok} ok, ${failed} failed` : `${ok} ok`, ink: failed > 0 ? 'red' : 'green' },
          { text: ' · ' },
        ];
      }),
      { text: `${roots} · ${count(mesh.rotations, 'rotation')}` },
    ],
  ];
}

/** The lifetime of the leaf from left to right: the past part, the remaining part, and the time of the renewal. */
function bar({ status }: MeshState, now: number): ViewLine {
  if (!status?.notBefore || !status.notAfter) return line('·'.repeat(BAR), 'dim');
  const [start, end] = [Date.parse(status.notBefore), Date.parse(status.notAfter)];
  const due = status.renewalTime ? Date.parse(status.renewalTime) : end;
  const cell = (time: number) => Math.min(BAR, Math.max(0, Math.round(((time - start) / (end - start)) * BAR)));
  const [past, renewal] = [cell(now), Math.min(BAR - 1, cell(due))];
  const cells = Array.from({ length: BAR }, (_, at) => (at < past ? '█' : at === renewal ? '│' : '·')).join('');
  const left = `${Math.max(0, (end - now) / 1000).toFixed(1)}s left`;
  const next = due > now ? `renews in ${((due - now) / 1000).toFixed(1)}s` : 'renewing';
  return [{ text: cells, ink: now >= end ? 'red' : now >= due ? 'yellow' : 'green' }, { text: ` ${left}, ${next}` }];
}

function draw(parts: ViewLine, columns: number, colours: boolean): string {
  let left = columns;
  return parts
    .map(({ text, ink }) => {
      const shown = text.length <= left ? text : `${text.slice(0, Math.max(0, left - 1))}${left > 0 ? '…' : ''}`;
      left = text.length <= left ? left - text.length : 0;
      return ink && colours && shown ? `\u001b[${CODES[ink]}m${shown}\u001b[0m` : shown;
    })
    .join('');
}

const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`;
const clockTime = (at: number): string => new Date(at).toISOString().slice(11, 19);

interface Event {
  readonly at: number;
  readonly mesh: string;
  readonly text: string;
}

const eventText = ({ at, mesh, text }: Event): string => `${clockTime(at)} ${mesh.padEnd(8)} ${text}`;

export const eventLine = (event: Event): string => `${eventText(event)}\n`;

export function closing(summary: DemoSummary): string {
  const { reason, rotations, rootRotations, requests, failed, gateways, broken, standstill, seconds } = summary;
  const time = formatDuration(Math.round(seconds) * 1000);
  const counts = `${count(requests, 'request')}, ${failed} failed (${gateways.map((one) => `${one.gateway} ${one.requests}`).join(', ')}); ${count(rotations, 'rotation')} and ${count(rootRotations, 'root rotation')} in ${time}; ${count(broken, 'broken pair')} seen`;
  return `${reason === undefined ? 'ok' : `not ok, ${reason}`}: ${counts}\n${notCounted(standstill)}`;
}

function notCounted({ seconds, requests, pairs }: DemoSummary['standstill']): string {
  if (requests + pairs === 0) return '';
  return `This process did not run for ${seconds}s in all, so leaves ended before they could be renewed: ${count(requests, 'more request')} failed and ${count(pairs, 'published pair')} ended for this reason. They are not counted. On a busy machine, let leaves live longer (--leaf).\n`;
}
