import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { z } from 'zod';
import { validator } from '../config/validate.ts';
import { gateways } from '../gateways.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { type KubeObject, keyOf, refOf } from '../objects/objects.ts';
import { AcceptedCertificates } from './source.ts';

const toy: Adapter = {
  mesh: 'istio',
  title: 'Toy',
  config: z.unknown(),
  tls: {},
  expect: () => ({ form: 'spiffe' }),
  needs: () => [],
  open: () => {
    throw new Error('it is never opened');
  },
};

let version = 0;
const object = (name: string, spec: object, metadata: object = {}): KubeObject => {
  version += 1;
  return {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: {
      name,
      namespace: 'emissary',
      uid: name,
      generation: version,
      creationTimestamp: name === 'elder' ? '2026-01-01T00:00:00Z' : '2026-02-01T00:00:00Z',
      ...metadata,
    },
    spec: { istio: {}, ...spec },
  };
};

function take(gathering: AcceptedCertificates, ...objects: readonly KubeObject[]) {
  const problems: string[] = [];
  const ordered = gathering.take([new Map(objects.map((one) => [keyOf(refOf(one)), one]))], (one, { message }) =>
    problems.push(`${one.metadata.name}: ${message}`),
  );
  return { ordered: ordered.map(({ metadata, spec }) => `${metadata.name} ${spec.secretName}`), problems };
}

describe('accepted certificates', () => {
  it('keep one that is edited into a conflict as it was, and report why', () => {
    const gathering = new AcceptedCertificates(validator([toy], gateways), gateways);
    const elder = object('elder', {});
    const good = take(gathering, elder, object('later', {}));
    assert.deepEqual(good, { ordered: ['elder elder-identity', 'later later-identity'], problems: [] });
    const edited = object('later', { secretName: 'elder-identity' });
    const bad = take(gathering, elder, edited);
    assert.deepEqual(bad.ordered, good.ordered);
    assert.match(bad.problems.join(), /later: spec\.secretName: .*belongs to MeshCertificate emissary\/elder/);
    const again = take(gathering, elder, { ...edited, status: { conditions: [] } });
    assert.deepEqual([again.ordered, again.problems], [bad.ordered, bad.problems]);
    assert.deepEqual(take(gathering, elder, object('later', {})), good);
  });

  it('carry why a newer version is refused, as one object for as long as nothing changes', () => {
    const gathering = new AcceptedCertificates(validator([toy], gateways), gateways);
    const [elder, later] = [object('elder', {}), object('later', {})];
    const latest = (...objects: readonly KubeObject[]) =>
      gathering.take([new Map(objects.map((one) => [keyOf(refOf(one)), one]))], () => {})[1];
    assert.equal(latest(elder, later)?.refused, undefined);
    const invalid = object('later', { secretName: 'No Name' });
    const refused = latest(elder, invalid);
    assert.equal(refused?.refused?.code, 'ERR_CONFIG');
    assert.equal(refused.refused.generation, invalid.metadata.generation);
    assert.equal(refused.metadata.generation, later.metadata.generation);
    assert.equal(latest(elder, invalid), refused);
    assert.equal(latest(elder, object('later', {}))?.refused, undefined);
  });

  it('leave a name with its owner, although an older resource claims it', () => {
    const gathering = new AcceptedCertificates(validator([toy], gateways), gateways);
    const later = object('later', {});
    take(gathering, object('elder', {}), later);
    const { ordered, problems } = take(gathering, object('elder', { secretName: 'later-identity' }), later);
    assert.deepEqual(ordered.toSorted(), ['elder elder-identity', 'later later-identity']);
    assert.match(problems.join(), /^elder: .*belongs to MeshCertificate emissary\/later/);
  });

  it('give a contested name to the older resource when both come at the same time', () => {
    const gathering = new AcceptedCertificates(validator([toy], gateways), gateways);
    const later = object('later', { secretName: 'elder-identity' });
    assert.deepEqual(take(gathering, later, object('elder', {})).ordered, ['elder elder-identity']);
  });

  it('do not mistake a new object of the same name for the one that was accepted', () => {
    const gathering = new AcceptedCertificates(validator([toy], gateways), gateways);
    const elder = object('elder', {});
    take(gathering, elder, object('later', {}));
    const { ordered } = take(gathering, elder, object('later', { secretName: 'elder-identity' }, { uid: 'another' }));
    assert.deepEqual(ordered, ['elder elder-identity']);
  });

  it('report what the deletion of a refused one waits for', () => {
    const gathering = new AcceptedCertificates(validator([toy], gateways), gateways);
    const deleting = { deletionTimestamp: '2026-03-01T00:00:00Z', finalizers: ['meshcert.dev/retire'] };
    const elder = object('elder', {});
    const { problems } = take(gathering, elder, object('later', { secretName: 'elder-identity' }, deleting));
    assert.match(problems.join(), /being deleted.*fix the spec.*finalizer meshcert\.dev\/retire/);
  });
});
