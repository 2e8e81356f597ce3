import { z } from 'zod';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { Trigger } from '../../src/async/trigger.ts';
import type { Adapter, Issuer, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { CONTRACT_VERSION, outsideAdapter } from '../../src/mesh/outside/adapter.ts';
import { TOY_ID, ToyMesh } from '../support/toy-mesh.ts';
import { adapterContract, type Subject } from './adapter-contract.ts';

/** The smallest adapters that fulfil the contract, one of each kind; each also as if it came from outside. */
for (const [title, wrap] of [
  ['', (adapter: Adapter) => adapter],
  [' from outside', (adapter: Adapter) => outsideAdapter({ contractVersion: CONTRACT_VERSION, adapter }, 'toy.js')],
] as const) {
  adapterContract(`A toy issuer${title}`, () => toyIssuer(wrap));
  adapterContract(`A toy source${title}`, () => toySource(wrap));
}

async function toyIssuer(wrap: (adapter: Adapter) => Adapter): Promise<Subject<unknown>> {
  const mesh = new ToyMesh(SandboxCa.root());
  const { adapter } = mesh;
  return {
    adapter: wrap({ ...adapter, open: (config, host) => abortable(adapter.open(config, host) as Issuer) }),
    config: {},
    outage: (on) => {
      mesh.outage = on;
    },
    changeRoots: () => mesh.rotate(mesh.ca, [SandboxCa.root().root]),
    stop: () => {},
  };
}

async function toySource(wrap: (adapter: Adapter) => Adapter): Promise<Subject<unknown>> {
  const mesh = new ToyMesh(SandboxCa.root());
  const pushed = new Set<Trigger>();
  const push = () => {
    for (const trigger of pushed) trigger.fire();
  };
  const adapter: Adapter = {
    mesh: 'toy',
    title: 'Toy',
    config: z.unknown(),
    tls: {},
    expect: () => ({ id: TOY_ID, form: 'spiffe' }),
    needs: () => [],
    open: (): Source => ({ watch, [Symbol.asyncDispose]: async () => push() }),
  };
  async function* watch(signal: AbortSignal): AsyncGenerator<Identity> {
    const trigger = new Trigger();
    pushed.add(trigger);
    try {
      for (;;) {
        signal.throwIfAborted();
        if (mesh.outage) throw new MeshError('ERR_MESH_UNREACHABLE', 'the toy does not answer; end the outage');
        yield mesh.issue();
        await trigger.wait(signal);
      }
    } finally {
      pushed.delete(trigger);
    }
  }
  return {
    adapter: wrap(adapter),
    config: {},
    outage: (on) => {
      mesh.outage = on;
      push();
    },
    rotate: push,
    stop: () => {},
  };
}

function abortable(issuer: Issuer): Issuer {
  return {
    ...issuer,
    issue: async (signal) => {
      signal.throwIfAborted();
      return issuer.issue(signal);
    },
  };
}
