import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type PublicationStatus, reportedStatus } from '../../src/core/status.ts';
import type { ObjectRef } from '../../src/objects/objects.ts';
import { startAgentProcess } from '../peers/parts/agent-process.ts';
import { eventually } from '../peers/parts/eventually.ts';
import { scratchDir } from '../peers/servers/process.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { SwitchedLeadership } from '../support/switched-leadership.ts';

/** The Secret of another one. */
const REFUSED = { secretName: 'taken' };
const MESH_CERTIFICATE: ObjectRef = {
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  namespace: NAMESPACE,
  name: 'istio',
};

describe('a MeshCertificate of which no version was accepted', () => {
  it('has its reason in the status once a replica leads that knew it before', async () => {
    await using first = await AgentWorld.start();
    const leadership = new SwitchedLeadership(false);
    await using world = AgentWorld.beside(first, leadership);
    world.putCertificate({ secretName: 'taken' }, { name: 'earlier' });
    world.putCertificate(REFUSED);
    world.follow();
    await world.until('the refusal in the log', () => logged(world).length === 1);
    assert.equal(await statusOf(world), undefined);
    leadership.change(true);
    await world.until('the refusal in the status', async () =>
      /Secret taken already belongs/.test(await reason(world)),
    );
    assert.equal(logged(world).length, 1);
  });

  it('has its reason in the status when it takes the place of a deleted one that was refused for the same', async () => {
    await using world = await AgentWorld.start();
    world.putCertificate({ secretName: 'taken' }, { name: 'earlier' });
    world.putCertificate(REFUSED);
    world.follow();
    await world.until('the refusal', async () => /Secret taken already belongs/.test(await reason(world)));
    await world.kube.delete(MESH_CERTIFICATE, {});
    world.putCertificate(REFUSED);
    await world.until('the refusal of the next', async () => /Secret taken already belongs/.test(await reason(world)));
  });

  it('has its reason in the status after a write of it failed', async () => {
    await using world = await AgentWorld.start();
    world.putCertificate({ secretName: 'taken' }, { name: 'earlier' });
    world.putCertificate(REFUSED);
    world.api.fault({
      times: 3,
      match: ({ verb, plural }) => verb === 'patch' && plural === 'meshcertificates',
      status: 500,
    });
    world.follow();
    await world.until('the refusal', async () => /Secret taken already belongs/.test(await reason(world)));
    assert.ok(
      world.lines.some((line) => line.startsWith('warn could not write the status of an invalid MeshCertificate')),
    );
  });

  it('leaves the agent ready, even if there is no other', async () => {
    await using world = await AgentWorld.start();
    // The API server takes it: schemas have no patterns for keys.
    world.putCertificate({ mappings: { selector: { matchLabels: { 'no label': '' } } } });
    const kubeconfig = join(scratchDir('refused'), 'kubeconfig');
    await world.api.writeKubeconfig(kubeconfig);
    const agent = await startAgentProcess({ kubeconfig, args: ['-n', NAMESPACE, '--no-leader-elect'] });
    try {
      await eventually('the refusal', async () => /matchLabels/.test(await reason(world)), agent.log);
      const answer = await fetch(`${agent.url}/readyz`);
      assert.deepEqual([answer.status, await answer.json()], [200, { ready: true, problems: [] }]);
    } finally {
      await agent.stop();
    }
  });
});

const logged = (world: AgentWorld) => world.lines.filter((line) => /^error .*Secret taken already belongs/.test(line));

async function statusOf(world: AgentWorld): Promise<PublicationStatus | undefined> {
  return reportedStatus((await world.kube.get(MESH_CERTIFICATE))?.status);
}

async function reason(world: AgentWorld): Promise<string> {
  return (await statusOf(world))?.conditions.find(({ type }) => type === 'Stalled')?.message ?? '';
}
