import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { describe, it, type Mock, mock } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Report, Sink } from '../../src/agent/reporter.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { Calls } from '../support/calls.ts';

/** The checks and handshakes that were made by the end of one reconcile. */
interface Pass {
  readonly written: number;
  readonly rotated: boolean;
  readonly signatures: number;
  readonly handshakes: number;
}

describe('the path of one identity', () => {
  it('verifies a candidate once, and does no cryptography when the watch shows our own write', async () => {
    await using world = await AgentWorld.start();
    const passes = await rotation(world);
    const write = passes.find(({ written }) => written > 0);
    const last = passes.at(-1);
    assert.deepEqual([write?.signatures, write?.handshakes], [1, 1], JSON.stringify(passes));
    assert.ok(last?.rotated && last !== write, 'a later pass saw the write');
    assert.deepEqual([last.signatures, last.handshakes], [1, 1], JSON.stringify(passes));
  });

  it('repeats nothing in a first issue and in a rotation', async () => {
    await using world = await AgentWorld.start();
    using calls = await Calls.counted();
    let reports = 0;
    let stored: PublicationStatus | undefined;
    const sink: Sink = {
      status: () => {
        reports += 1;
      },
      seen: (_certificate, { status }) => {
        stored = status;
      },
    };
    const counts = async () => {
      const { decide, verify } = await calls.take({
        decide: 'src/core/decide.ts',
        verify: 'src/core/verify.ts',
      });
      const reconciles = reports;
      reports = 0;
      return { reconciles, decide, verify };
    };
    world.putCertificate();
    await counts();
    world.follow(false, [sink]);
    await world.until('the stored status', () => stored?.rotations === 0 && stored.fingerprint !== undefined);
    // The mesh has not answered yet; a candidate, before and after its handshake, is published; the watch shows it.
    // Before the mesh is asked, what is published is read.
    assert.deepEqual(await counts(), { reconciles: 3, decide: 5, verify: 3 });
    world.agent?.reconcilers.find(NAMESPACE, 'istio')?.renew();
    await world.until('the stored status', () => stored?.rotations === 1);
    assert.deepEqual(await counts(), { reconciles: 2, decide: 3, verify: 5 });
  });

  it('does not verify again under two roots of the same name', async () => {
    await using world = await AgentWorld.start();
    const next = SandboxCa.root({ clock: world.clock });
    world.mesh.roots = [next.root, world.mesh.ca.root];
    assert.equal(next.root.subject, world.mesh.ca.root.subject);
    const passes = await rotation(world);
    const write = passes.find(({ written }) => written > 0);
    assert.equal(passes.at(-1)?.signatures, write?.signatures, JSON.stringify(passes));
  });
});

/** The reconciles of one rotation, from the request for a new certificate until it was read back. */
async function rotation(world: AgentWorld): Promise<readonly Pass[]> {
  const signatures: Mock<X509Certificate['verify']> = mock.method(X509Certificate.prototype, 'verify');
  const { preflight } = world;
  let handshakes = 0;
  world.preflight = (...presented) => {
    handshakes += 1;
    return preflight(...presented);
  };
  const passes: Pass[] = [];
  const sink: Sink = {
    status: (_status, _before, passed) => {
      const { outcome, rotation } = passed as Report;
      const isLeaf = rotation?.kind === 'leaf';
      const written = outcome?.written.length ?? 0;
      passes.push({ written, rotated: isLeaf, signatures: signatures.mock.callCount(), handshakes });
    },
  };
  try {
    world.run({}, [sink]);
    await world.untilReady();
    passes.length = 0;
    signatures.mock.resetCalls();
    handshakes = 0;
    world.agent?.reconcilers.find(NAMESPACE, 'istio')?.renew();
    await world.until('a rotation', () => passes.some(({ rotated }) => rotated));
    return passes;
  } finally {
    signatures.mock.restore();
  }
}
