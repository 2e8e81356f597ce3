import { formatDuration } from '../mesh/duration.ts';
import type { DemoState, DemoSummary, MeshState } from './demo-state.ts';

export interface Paint {
  readonly columns: number;
  readonly colours: boolean;
}

const BAR = 24;
const EVENTS = 6;
const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;

/** One picture of the demo, in lines that fit the terminal. */
export function frame(state: DemoState, now: number, { columns, colours }: Paint): string[] {
  const ink = (code: keyof typeof CODES, text: string) => (colours ? `\u001b[${CODES[code]}m${text}\u001b[0m` : text);
  const fit = (text: string, width: number) => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);
  const seconds = Math.floor((now - state.startedAt) / 1000);
  const lines = [
    `${ink('bold', 'meshcert demo')}  ${seconds}s  ${state.sum('rotations')} rotations, ${state.sum('rootRotations')} root rotations`,
    '',
  ];
  for (const mesh of state.meshes) {
    const { status } = mesh;
    lines.push(
      `${ink('bold', mesh.mesh.padEnd(8))} ${fit(status?.id ?? 'waiting for the first certificate', columns - 9)}`,
    );
    lines.push(`         ${bar(mesh, now, ink)}`);
    const counts = `${mesh.ok} ok, ${mesh.failed} failed`;
    const roots = `${status?.roots.length ?? 0} root${status?.roots.length === 1 ? '' : 's'} trusted`;
    lines.push(
      `         requests ${mesh.failed > 0 ? ink('red', counts) : ink('green', counts)} · ${roots} · ${mesh.rotations} rotation${mesh.rotations === 1 ? '' : 's'}`,
    );
    lines.push('');
  }
  for (const { at, mesh, text } of state.events.slice(-EVENTS)) {
    lines.push(ink('dim', fit(`${clockTime(at)} ${mesh.padEnd(8)} ${text}`, columns)));
  }
  return lines;
}

/** The leaf's life from left to right: past, future, and where the renewal is due. */
function bar({ status }: MeshState, now: number, ink: (code: keyof typeof CODES, text: string) => string): string {
  if (!status?.notBefore || !status.notAfter) return ink('dim', '·'.repeat(BAR));
  const [start, end] = [Date.parse(status.notBefore), Date.parse(status.notAfter)];
  const due = status.renewalTime ? Date.parse(status.renewalTime) : end;
  const cell = (time: number) => Math.min(BAR, Math.max(0, Math.round(((time - start) / (end - start)) * BAR)));
  const [past, renewal] = [cell(now), Math.min(BAR - 1, cell(due))];
  const cells = Array.from({ length: BAR }, (_, at) => (at < past ? '█' : at === renewal ? '│' : '·')).join('');
  const left = `${Math.max(0, (end - now) / 1000).toFixed(1)}s left`;
  const next = due > now ? `renews in ${((due - now) / 1000).toFixed(1)}s` : 'renewing';
  return `${now >= end ? ink('red', cells) : now >= due ? ink('yellow', cells) : ink('green', cells)} ${left}, ${next}`;
}

const clockTime = (at: number): string => new Date(at).toISOString().slice(11, 19);

export const eventLine = ({ at, mesh, text }: { at: number; mesh: string; text: string }): string =>
  `${clockTime(at)} ${mesh.padEnd(8)} ${text}\n`;

export function closing(summary: DemoSummary): string {
  const { ok, rotations, rootRotations, requests, failed, broken, seconds } = summary;
  const verdict = ok ? 'all is well' : rotations === 0 ? 'nothing rotated' : 'something failed';
  return `${verdict}: ${requests} requests, ${failed} failed; ${rotations} rotations and ${rootRotations} root rotations in ${formatDuration(Math.round(seconds) * 1000)}; ${broken} broken pairs seen\n`;
}
