import { parseArgs } from 'node:util';
import { systemClock as clock } from '../mesh/clock.ts';
import { parseDuration } from '../mesh/duration.ts';
import { MESH_NAMES, type MeshName } from '../sandbox/cluster/mesh.ts';
import { type Command, type Io, UsageError } from './command.ts';
import { runDemo } from './demo-run.ts';
import type { DemoState } from './demo-state.ts';
import { closing, eventLine, frame } from './demo-view.ts';

const USAGE = `usage: meshcert demo [flags]

Runs a whole cluster in this process: a Kubernetes API, the meshes, a workload
in each that demands mTLS, and a gateway that reads what the agent publishes.
Leaves live for seconds, roots are rotated, and requests never cease. Nothing
outside this process is touched. Ctrl-C ends it.

  --for DURATION   end by itself after this much traffic, such as 30s
  --meshes A,B     istio, linkerd, consul (default: all)
  --leaf DURATION  life of a leaf (default 10s, at least 5s)
  --json           no view; one line of JSON at the end

Exit code: 0 when certificates rotated and no request failed, else 1.
`;

const FRAME_MS = 250;
/** Below it, the two seconds that the agent keeps between Secrets and TLSContexts no longer fit into a renewal. */
const SHORTEST_LEAF_MS = 5_000;
const UP = '\u001b[';

export const demo: Command = {
  name: 'demo',
  summary: 'Run a whole cluster in this process and rotate through traffic',
  usage: USAGE,
  run,
};

async function run(argv: readonly string[], io: Io): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      for: { type: 'string' },
      meshes: { type: 'string', default: MESH_NAMES.join(',') },
      leaf: { type: 'string', default: '10s' },
      json: { type: 'boolean', default: false },
    },
  });
  const forMs = values.for === undefined ? undefined : duration('--for', values.for);
  const leafLifetimeMs = duration('--leaf', values.leaf);
  if (leafLifetimeMs < SHORTEST_LEAF_MS) throw new UsageError('--leaf must be at least 5s');
  const live = !values.json && io.stdout.isTTY === true;
  const ended = new AbortController();
  let drawing: Promise<void> | undefined;
  const started = (state: DemoState) => {
    if (live) drawing = draw(state, io, ended.signal);
    else if (!values.json) state.onEvent = (event) => io.stdout.write(eventLine(event));
  };
  const state = await runDemo({ meshes: meshesOf(values.meshes), forMs, leafLifetimeMs, started }, io.signal).finally(
    () => ended.abort(new Error('the demo is over')),
  );
  await drawing;
  const summary = state.summary();
  io.stdout.write(values.json ? `${JSON.stringify(summary)}\n` : closing(summary));
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

function meshesOf(text: string): MeshName[] {
  const names = [...new Set(text.split(',').map((name) => name.trim()))];
  return names.map((name) => {
    const known = MESH_NAMES.find((mesh) => mesh === name);
    if (!known) throw new UsageError(`--meshes: no mesh ${JSON.stringify(name)}; there are ${MESH_NAMES.join(', ')}`);
    return known;
  });
}

function duration(flag: string, text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw new UsageError(`${flag}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
