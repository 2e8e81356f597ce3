import { MESH_NAMES } from '../../adapters/names.ts';
import { bool, choices, duration, type Values } from './flags.ts';
import { declare, type Io } from './program.ts';

/**
 * The agent requests a certificate no sooner than five seconds after the last one, and renews at three fifths of a life:
 * a shorter leaf would end before its successor is published.
 */
const SHORTEST_LEAF = '10s';

const flags = {
  for: duration('--for <duration>', 'Stop after this much traffic, such as 30s'),
  meshes: choices('--meshes <list>', 'Meshes, with commas between them (default: all)', MESH_NAMES),
  leaf: duration('--leaf <duration>', `Lifetime of a leaf, at least ${SHORTEST_LEAF}`, '10s', SHORTEST_LEAF),
  json: bool('--json', 'Show no view; print one line of JSON at the end'),
};

export const demo = declare({
  name: 'demo',
  description:
    'Runs a whole cluster in this process: a Kubernetes API, the meshes, a workload in each that requires mTLS, and a ' +
    'gateway that reads what the agent publishes. Leaves live for seconds, roots are rotated, and requests never stop. ' +
    'The demo touches nothing outside this process. Press Ctrl-C to end it.',
  flags,
  examples: [
    { does: 'Watch all meshes until you press Ctrl-C', line: 'meshcert demo' },
    {
      does: 'Run one mesh for half a minute, and print the result',
      line: `meshcert demo --meshes ${MESH_NAMES[0]} --for 30s --json`,
    },
  ],
  exitCodes: '0  certificates rotated and no request failed\n1  otherwise\n2  wrong usage',
  run: async ({ flags }, io) => await runDemo(flags, io),
});

/**
 * The demo is a separate file beside the product, since it contains a sandbox of everything that the agent connects to.
 */
async function runDemo(given: Values<typeof flags>, io: Io): Promise<number> {
  const { runDemoCommand } = await import('../../sandbox/demo/demo.ts').catch((cause: Error) => {
    if (!/demo\.js/.test(cause.message)) throw cause;
    throw new Error('this installation does not include the demo; install the npm package, or clone the repository', {
      cause,
    });
  });
  return await runDemoCommand(given, io);
}
