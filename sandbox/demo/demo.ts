import { MESH_NAMES, type MeshName } from '../../adapters/names.ts';
import { systemClock as clock } from '../../src/async/clock.ts';
import { runDemo } from './run.ts';
import type { DemoState } from './state.ts';
import { closing, eventLine, frame } from './view.ts';

const FRAME_MS = 250;
const ESCAPE = '\u001b[';

/** The flags of the command. */
export interface DemoFlags {
  readonly meshes: readonly MeshName[] | undefined;
  readonly for: number | undefined;
  readonly leaf: number;
  readonly json: boolean;
}

interface Terminal {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
}

interface DemoIo {
  readonly stdout: Terminal;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
}

/** Runs the demo until its time is over or the signal is aborted. Returns the exit code. */
export async function runDemoCommand(flags: DemoFlags, io: DemoIo): Promise<number> {
  const live = !flags.json && io.stdout.isTTY === true;
  if (!flags.json) io.stdout.write('Starting a Kubernetes API, the meshes and a gateway in this process ...\n');
  if (!flags.json && !live) {
    const how = flags.for === undefined ? ' Press Ctrl-C to stop, or give --for.' : '';
    io.stdout.write(`The output is not a terminal, so each event is a line.${how}\n`);
  }
  const ended = new AbortController();
  let drawing: Promise<void> | undefined;
  const started = (state: DemoState) => {
    if (live) drawing = draw(state, io, ended.signal);
    else if (!flags.json) state.onEvent = (event) => io.stdout.write(eventLine(event));
  };
  const state = await runDemo(
    { meshes: flags.meshes ?? MESH_NAMES, forMs: flags.for, leafLifetimeMs: flags.leaf, started },
    io.signal,
  ).finally(() => ended.abort(new Error('the demo is over')));
  await drawing;
  const summary = state.summary();
  io.stdout.write(flags.json ? `${JSON.stringify(summary)}\n` : closing(summary));
  return summary.ok ? 0 : 1;
}

/**
 * Draws several times a second until the signal, on the terminal's alternate screen, so that a resize leaves no traces.
 * The last frame stays on the ordinary screen.
 */
async function draw(state: DemoState, io: DemoIo, signal: AbortSignal): Promise<void> {
  const picture = () =>
    frame(state, clock.now(), {
      // A pseudo-terminal without a size reports 0.
      columns: io.stdout.columns || 80,
      rows: io.stdout.rows || 24,
      colours: io.env.NO_COLOR === undefined,
    });
  io.stdout.write(`${ESCAPE}?1049h${ESCAPE}?25l`);
  try {
    while (!signal.aborted) {
      io.stdout.write(`${ESCAPE}H${picture().join(`${ESCAPE}K\r\n`)}${ESCAPE}K${ESCAPE}J`);
      await clock.sleep(FRAME_MS, signal).catch(() => {});
    }
  } finally {
    io.stdout.write(`${ESCAPE}?25h${ESCAPE}?1049l`);
  }
  io.stdout.write(`${picture().join('\n')}\n`);
}
