import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Identity } from '../mesh/identity.ts';
import {
  FIELD_MANAGER,
  type KubeObject,
  keyOf,
  type ManagedFields,
  OWNER_LABEL,
  refOf,
  UID_ANNOTATION,
} from '../objects/objects.ts';
import { type Certificate, formatCertificates, parseCertificates } from '../pki/certificate.ts';
import { type Desired, type PlanStep, plan } from './plan.ts';

const now = Date.UTC(2026, 5, 1);
const hour = 3_600_000;
const owner = 'emissary.istio';
const ours: ManagedFields = { manager: FIELD_MANAGER, operation: 'Apply', fieldsV1: {} };
const object = (kind: string, name: string, rest: Record<string, unknown> = {}): KubeObject => ({
  apiVersion: kind === 'TLSContext' ? 'getambassador.io/v3alpha1' : 'v1',
  kind,
  metadata: { name, namespace: 'emissary', labels: { [OWNER_LABEL]: owner } },
  ...rest,
});
/** As the API shows an object after our write. */
const live = (
  wanted: KubeObject,
  metadata: Record<string, unknown> = {},
  rest: Record<string, unknown> = {},
): KubeObject => ({
  ...wanted,
  ...rest,
  metadata: {
    ...wanted.metadata,
    ...{ resourceVersion: '7', uid: 'u', managedFields: [ours] },
    ...metadata,
    ...(wanted.kind === 'Secret' ? { annotations: { ...Object(metadata.annotations), [UID_ANNOTATION]: 'u' } } : {}),
  },
});
const secret = object('Secret', 'istio-ca', { type: 'Opaque', data: { 'ca.crt': 'QQ==' } });
const context = object('TLSContext', 'istio', { spec: { secret: 'istio-identity', hosts: [] } });
const desiredObject = (wanted: KubeObject, order = 1): Desired => ({
  object: wanted,
  order,
  ...(wanted.kind === 'Secret' ? {} : { gateway: 'emissary' }),
});
const run = (desired: readonly Desired[], observed: readonly KubeObject[]): PlanStep[] =>
  plan(desired, new Map(observed.map((one) => [keyOf(refOf(one)), one])), owner, now);
const only = (wanted: KubeObject, observed?: KubeObject): PlanStep => {
  const [step] = run([desiredObject(wanted)], observed ? [observed] : []);
  assert.ok(step);
  return step;
};
const changedOf = (step: PlanStep) => (step.action === 'refuse' ? step.code : `${step.action} ${step.changed.join()}`);

describe('a plan', () => {
  test('creates what is missing, in order', () => {
    const steps = run([desiredObject(context, 3), desiredObject(secret, 1)], []);
    assert.deepEqual(
      steps.map((step) => step.action !== 'refuse' && [step.action, step.object.kind, step.precondition]),
      [
        ['create', 'Secret', undefined],
        ['create', 'TLSContext', undefined],
      ],
    );
  });

  test('is empty when everything is as desired (no change, no write)', () => {
    const steps = run([desiredObject(secret), desiredObject(context)], [live(secret), live(context)]);
    assert.deepEqual(steps.map(changedOf), ['none ', 'none ']);
  });

  test('names the fields that differ, never their values, and carries the observed uid and version', () => {
    const step = only(secret, live(secret, {}, { data: { 'ca.crt': 'Qg==' } }));
    assert.ok(step.action === 'apply');
    assert.deepEqual(step.changed, ['data.ca.crt']);
    assert.deepEqual(step.precondition, { uid: 'u', resourceVersion: '7' });
  });

  test('writes the uid of a Secret into it, which proves that it was not only created', () => {
    const [created, forged] = [undefined, 'other'].map((uid) => {
      const annotations = uid === undefined ? undefined : { [UID_ANNOTATION]: uid };
      return only(secret, { ...live(secret), metadata: { ...live(secret).metadata, annotations } } as KubeObject);
    });
    for (const step of [created, forged]) {
      assert.ok(step?.action === 'apply');
      assert.deepEqual(step.changed, [`metadata.annotations.${UID_ANNOTATION}`]);
      assert.equal(step.object.metadata.annotations?.[UID_ANNOTATION], 'u');
    }
    assert.equal(changedOf(only(context, live(context))), 'none ');
  });

  test('ignores what others added and what the server filled in', () => {
    const extra = live(
      secret,
      { annotations: { 'kubectl.kubernetes.io/x': 'y' }, labels: { ...secret.metadata.labels, team: 'a' } },
      { data: { 'ca.crt': 'QQ==', other: 'Qg==' }, immutable: false },
    );
    assert.equal(changedOf(only(secret, extra)), 'none ');
    const filled = live(
      context,
      {},
      { spec: { secret: 'istio-identity', hosts: [], ambassador_id: ['default'] }, status: {} },
    );
    assert.equal(changedOf(only(context, filled)), 'none ');
  });

  test('removes what an earlier apply of ours set and is no longer wanted', () => {
    const fieldsV1 = {
      'f:metadata': { 'f:annotations': { 'f:meshcert.dev/old': {} }, 'f:labels': { [`f:${OWNER_LABEL}`]: {} } },
      'f:spec': { 'f:sni': {}, 'f:secret': {}, 'f:ambassador_id': { 'v:"x"': {} } },
    };
    const observed = live(context, {
      managedFields: [{ ...ours, fieldsV1 }],
      annotations: { 'meshcert.dev/old': '1' },
    });
    assert.equal(changedOf(only(context, observed)), 'apply metadata.annotations,spec.sni,spec.ambassador_id');
  });

  test('takes back what our creation set, where nothing was applied since', () => {
    const fieldsV1 = { 'f:spec': { 'f:sni': {}, 'f:secret': {} } };
    const created = { ...ours, operation: 'Update' as const, fieldsV1 };
    assert.equal(changedOf(only(context, live(context, { managedFields: [created] }))), 'apply spec.sni');
  });

  test('compares lists as a whole', () => {
    const wanted = object('TLSContext', 'x', { spec: { ambassador_id: ['a', 'b'] } });
    assert.equal(
      changedOf(only(wanted, live(wanted, {}, { spec: { ambassador_id: ['b', 'a'] } }))),
      'apply spec.ambassador_id',
    );
    assert.equal(changedOf(only(wanted, live(wanted, {}, { spec: { ambassador_id: ['a', 'b'] } }))), 'none ');
  });

  test('does not mistake an absent map for a change when an empty one is wanted', () => {
    const wanted = { ...secret, metadata: { ...secret.metadata, annotations: {} } };
    assert.equal(changedOf(only(wanted, live(secret))), 'none ');
  });
});

describe('a plan refuses', () => {
  test('an object that somebody else made (ESO issue 2416)', () => {
    const foreign = live(secret, { labels: {} });
    assert.equal(changedOf(only(secret, foreign)), 'ERR_PLAN_FOREIGN');
  });

  test('an object that carries our label but that we never wrote', () => {
    const copied = live(secret, { managedFields: [{ ...ours, manager: 'kubectl' }] });
    assert.equal(changedOf(only(secret, copied)), 'ERR_PLAN_FOREIGN');
    const statusOnly = live(secret, { managedFields: [{ ...ours, subresource: 'status' }] });
    assert.equal(changedOf(only(secret, statusOnly)), 'ERR_PLAN_FOREIGN');
  });

  test('an object of another MeshCertificate, by its name (cert-manager issue 5675)', () => {
    const step = only(secret, live(secret, { labels: { [OWNER_LABEL]: 'shop.linkerd' } }));
    assert.ok(step.action === 'refuse');
    assert.equal(step.code, 'ERR_PLAN_FOREIGN');
    assert.match(step.message, /Secret emissary\/istio-ca belongs to the MeshCertificate shop\.linkerd/);
  });

  test('what cannot be changed in place', () => {
    const changed = { data: { 'ca.crt': 'Qg==' } };
    assert.equal(changedOf(only(secret, live(secret, {}, { type: 'kubernetes.io/tls' }))), 'ERR_PLAN_TYPE');
    assert.equal(changedOf(only(secret, live(secret, {}, { ...changed, immutable: true }))), 'ERR_PLAN_IMMUTABLE');
    assert.equal(changedOf(only(secret, live(secret, { deletionTimestamp: 'x' }, changed))), 'ERR_PLAN_DELETING');
  });
});

describe('an identity Secret', () => {
  const ca = SandboxCa.root({ notBefore: now - 100 * hour, notAfter: now + 100 * hour });
  const identity = (notBefore: number, notAfter: number, uri = 'spiffe://td/a', by = ca): KubeObject =>
    secretOf(by.identity({ uris: [uri], notBefore, notAfter }), ca);
  const secretOf = ({ key, chain }: Identity, trusted: SandboxCa): KubeObject =>
    object('Secret', 'istio-identity', {
      type: 'kubernetes.io/tls',
      data: {
        'tls.key': b64(key.toPem()),
        'tls.crt': b64(formatCertificates(chain)),
        'ca.crt': b64(trusted.certificate.pem),
      },
    });
  const b64 = (text: string) => Buffer.from(text).toString('base64');
  const leafIn = ({ data }: KubeObject): Certificate => {
    const [leaf] = parseCertificates(Buffer.from((data as Record<string, string>)['tls.crt'] ?? '', 'base64'));
    assert.ok(leaf);
    return leaf;
  };
  const guarded = (next: KubeObject, standing: KubeObject, at = now) =>
    plan(
      [{ object: next, order: 2, leaf: leafIn(next) }],
      new Map([[keyOf(refOf(standing)), live(standing)]]),
      owner,
      at,
    ).map((step) => (step.action === 'refuse' ? step.code : step.action))[0];

  const older = identity(now - 2 * hour, now + 8 * hour);
  const newer = identity(now - hour, now + 9 * hour);

  test('is replaced by a newer one, and never by an older one while it is good', () => {
    assert.equal(guarded(newer, older), 'apply');
    assert.equal(guarded(older, newer), 'ERR_PLAN_OLDER');
    assert.equal(guarded(newer, newer), 'none');
  });

  test('is replaced by an older one once it is in its last tenth or expired', () => {
    const brief = identity(now - hour, now + hour / 10);
    assert.equal(guarded(older, brief), 'apply');
    assert.equal(guarded(older, identity(now - hour, now - 1)), 'apply');
  });

  test('is replaced when the existing one is broken, untrusted or for another name, however new', () => {
    const { data } = newer;
    const broken = { ...newer, data: { ...(data as object), 'tls.crt': 'QQ==' } };
    const mixed = {
      ...newer,
      data: { ...(data as object), 'tls.key': (older.data as Record<string, string>)['tls.key'] },
    };
    assert.equal(guarded(older, broken), 'apply');
    assert.equal(guarded(older, mixed), 'apply');
    assert.equal(guarded(older, identity(now - hour, now + hour, 'spiffe://td/a', SandboxCa.root())), 'apply');
    assert.equal(guarded(older, identity(now - hour, now + 9 * hour, 'spiffe://td/b')), 'apply');
  });

  test('is not guarded when the desired object does not ask for it', () => {
    const [step] = run([desiredObject(older)], [live(newer)]);
    assert.equal(step?.action, 'apply');
  });
});
