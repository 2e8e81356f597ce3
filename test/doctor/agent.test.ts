import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { parseDocuments } from '../../src/config/documents.ts';
import { diagnose } from '../../src/doctor/doctor.ts';
import { gateways } from '../../src/gateways.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { AgentWorld } from '../support/agent-world.ts';
import { exampleOf, material, objectsOf, readExamples } from './examples.ts';
import { checkJudged } from './judged.ts';

const { texts } = material();
const { base } = readExamples();
const codesOf = (objects: readonly KubeObject[]) =>
  diagnose({ adapters, objects, now: Date.now(), whole: new Set() }).map(({ code }) => code);
const refOf = ({ apiVersion, kind, metadata }: KubeObject) => ({ apiVersion, kind, ...metadata });

describe('the traps of docs/checks.md that affect our own agent', () => {
  const judged = new Set<string>();
  const trapTest = (code: string, harm: string, act: () => Promise<void> | void) => {
    judged.add(code);
    it(`${code}: ${harm}`, act);
  };
  /** The objects of an example, and its MeshCertificates without their mesh: the agent here has its own. */
  const trap = (code: string) => {
    const objects = objectsOf(texts, base, exampleOf(code));
    assert.ok(codesOf(objects).includes(code), `doctor finds ${code}`);
    return { objects, certificates: objects.filter(({ kind }) => kind === 'MeshCertificate') };
  };
  const specOf = (certificate: KubeObject | undefined) => {
    const { istio: _, ...spec } = (certificate?.spec ?? {}) as Record<string, unknown>;
    return spec;
  };

  trapTest('MC5001', 'the agent takes the first and refuses the second', () => {
    trap('MC5001');
    const { documents, errors } = parseDocuments(exampleOf('MC5001'), 'mesh.yaml', adapters, gateways);
    assert.deepEqual(
      documents.map(({ metadata }) => metadata.name),
      ['one'],
    );
    assert.match(
      errors.map(({ message }) => message).join(),
      /TLSContext shared already belongs to MeshCertificate emissary\/one/,
    );
  });

  trapTest('MC5002', 'nothing is published, and what stands is left as it is', async () => {
    const { objects, certificates } = trap('MC5002');
    await using world = await AgentWorld.start();
    const standing = objects.find(({ kind, metadata }) => kind === 'Secret' && metadata.name === 'mesh-identity');
    assert.ok(standing);
    world.api.put(standing);
    world.run(specOf(certificates[0]));
    await world.untilCode('ERR_PLAN_FOREIGN');
    assert.deepEqual((await world.kube.get(refOf(standing)))?.data, standing.data);
    assert.equal(await world.context(), undefined);
  });

  trapTest('MC5003', 'the agent refuses it, and nothing is published', () => {
    trap('MC5003');
    const { documents, errors } = parseDocuments(exampleOf('MC5003'), 'mesh.yaml', adapters, gateways);
    assert.deepEqual(documents, []);
    assert.match(errors.map(({ path, message }) => `${path} ${message}`).join(), /spec\.secretName .*istio-certs/);
  });

  trapTest('MC5005', 'the certificate is published, and no Mapping has it', async () => {
    const { objects, certificates } = trap('MC5005');
    await using world = await AgentWorld.start();
    for (const object of objects) if (object.kind === 'Mapping') world.api.put(object);
    world.run(specOf(certificates[0]));
    await world.untilReady();
    assert.equal(world.condition('Referenced')?.status, 'False');
  });

  trapTest('MC5007', 'the agent leaves the Mapping alone, and it stays in plaintext', async () => {
    const { objects, certificates } = trap('MC5007');
    await using world = await AgentWorld.start();
    const mapping = objects.find(({ kind }) => kind === 'Mapping');
    assert.ok(mapping);
    world.api.put(mapping);
    world.run(specOf(certificates[0]));
    await world.untilReady();
    assert.equal(world.status?.mappings[0]?.state, 'ERR_TARGET_NO_HTTPS');
    assert.equal(((await world.kube.get(refOf(mapping))) as { spec?: { tls?: string } })?.spec?.tls, undefined);
  });

  it('docs/checks.md says which checks are tested here', () => checkJudged('agent', judged));
});
