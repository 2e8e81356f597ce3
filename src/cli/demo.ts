import { systemClock as clock } from '../mesh/clock.ts';
import { MESH_NAMES } from '../sandbox/cluster/mesh.ts';
import type { Io } from './command.ts';
import type { DemoFlags } from './commands/demo.ts';
import { runDemo } from './demo-run.ts';
import type { DemoState } from './demo-state.ts';
import { closing, eventLine, frame } from './demo-view.ts';

const FRAME_MS = 250;
const UP = '\u001b[';

export async function runDemoCommand(flags: DemoFlags, io: Io): Promise<number> {
  const live = !flags.json && io.stdout.isTTY === true;
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

/** Draws over the last picture, several times a second, until the signal. */
async function draw(state: DemoState, io: Io, signal: AbortSignal): Promise<void> {
  let height = 0;
  for (;;) {
    const lines = frame(state, clock.now(), {
      // A pseudo-terminal without a size says 0.
      columns: io.stdout.columns || 80,
      colours: io.env.NO_COLOR === undefined,
    });
    const home = height > 0 ? `${UP}${height}A` : '';
    io.stdout.write(`${home}${lines.map((line) => `${line}${UP}K\n`).join('')}${UP}J`);
    height = lines.length;
    if (signal.aborted) return;
    await clock.sleep(FRAME_MS, signal).catch(() => {});
  }
}
