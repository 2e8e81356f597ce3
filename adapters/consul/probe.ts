import type { Check } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { ConsulAgent } from './agent.ts';
import type { ConsulConfig } from './config.ts';
import { wrongName } from './name.ts';
import { readLeaf, readRoots } from './read-http.ts';
import type { Trust } from './trust.ts';

/** Runs one check; a failure becomes its message. */
export async function check(code: string, signal: AbortSignal, run: () => Promise<string>): Promise<Check> {
  try {
    return { code, ok: true, message: await run() };
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof MeshError)) throw error;
    return { code, ok: false, message: `${error.message} [${error.code}]` };
  }
}

export function describeTrust(trust: Trust): string {
  return `trust domain ${trust.trustDomain}, ${trust.roots.length} root${trust.roots.length === 1 ? '' : 's'}`;
}

export function probeHttp(config: ConsulConfig, agent: ConsulAgent, signal: AbortSignal): Promise<readonly Check[]> {
  let trust: Trust | undefined;
  return inTurn([
    () =>
      check('CONSUL_ROOTS', signal, async () => {
        trust = readRoots(agent.rootsName, await agent.roots().next(0, signal));
        return describeTrust(trust);
      }),
    () =>
      check('CONSUL_TOKEN', signal, async () =>
        (await agent.tokens.get(signal)) === undefined ? 'no token is configured' : 'a token is at hand',
      ),
    () =>
      check('CONSUL_LEAF', signal, async () => {
        const [leaf] = readLeaf(agent.leafName, await agent.leaf().next(0, signal)).certificates;
        const wrong = trust && wrongName(config, leaf, trust.trustDomain);
        if (wrong) throw new MeshError('ERR_MESH_BAD_RESPONSE', wrong);
        return `${leaf.names.uris[0]} until ${new Date(leaf.notAfter).toISOString()}`;
      }),
  ]);
}

/** Stops at the first that fails: what follows would only repeat it. */
export async function inTurn(checks: readonly (() => Promise<Check>)[]): Promise<readonly Check[]> {
  const results: Check[] = [];
  for (const run of checks) {
    const result = await run();
    results.push(result);
    if (!result.ok) break;
  }
  return results;
}
