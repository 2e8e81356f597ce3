import { z } from 'zod';
import { Trigger } from '../../src/async/trigger.ts';
import type { Adapter, Issuer, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { SandboxCa } from '../../src/sandbox/ca.ts';
import { TOY_ID, ToyMesh } from '../support/toy-mesh.ts';
import { adapterContract } from './adapter-contract.ts';

/** The smallest things that keep the contract, one of each kind. */
adapterContract('A toy issuer', async () => {
  const mesh = new ToyMesh(SandboxCa.root());
  const { adapter } = mesh;
  return {
    adapter: { ...adapter, open: (config, host) => abortable(adapter.open(config, host) as Issuer) },
    config: {},
    outage: (on) => {
      mesh.outage = on;
    },
    changeRoots: () => mesh.rotate(mesh.ca, [SandboxCa.root().root]),
    stop: () => {},
  };
});

adapterContract('A toy source', async () => {
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
    adapter,
    config: {},
    outage: (on) => {
      mesh.outage = on;
      push();
    },
    rotate: push,
    stop: () => {},
  };
});

function abortable(issuer: Issuer): Issuer {
  return {
    ...issuer,
    issue: async (signal) => {
      signal.throwIfAborted();
      return issuer.issue(signal);
    },
  };
}
