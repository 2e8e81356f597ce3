import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { canI } from '../../../src/doctor/looks.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { onlyNamed, RESOURCES } from '../../../src/kube/resources.ts';
import type { KubeObject } from '../../../src/objects/objects.ts';
import { type Bench, MANAGER, OTHER, secret } from './target.ts';

const RBAC = 'rbac.authorization.k8s.io/v1';

export function accessContract(bench: Bench): void {
  describe('access', () => {
    /** A ServiceAccount with these rules in its own namespace, and a connection as it. */
    async function agent(namespace: string, rules: object[]): Promise<Kube> {
      const subject = { kind: 'ServiceAccount', name: 'agent', namespace };
      const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'agent' };
      const objects: KubeObject[] = [
        { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'agent', namespace } },
        { apiVersion: RBAC, kind: 'Role', metadata: { name: 'agent', namespace }, rules },
        { apiVersion: RBAC, kind: 'RoleBinding', metadata: { name: 'agent', namespace }, subjects: [subject], roleRef },
      ];
      for (const object of objects) await bench.kube.create(object, OTHER);
      const { token } = await bench.kube.token({ name: 'agent', namespace }, API_AUDIENCE, 600);
      return bench.connectAs(token);
    }

    it('mints ServiceAccount tokens for an audience and a time', async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(
        { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'emissary', namespace } },
        OTHER,
      );
      const { token, expiresAt } = await bench.kube.token({ name: 'emissary', namespace }, 'istio-ca', 600);
      const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
      assert.deepEqual(claims.aud, ['istio-ca']);
      assert.equal(claims.sub, `system:serviceaccount:${namespace}:emissary`);
      assert.equal(claims.exp - claims.iat, 600);
      assert.equal(expiresAt, claims.exp * 1000);
      assert.equal(claims['kubernetes.io'].namespace, namespace);
      assert.equal(claims['kubernetes.io'].serviceaccount.name, 'emissary');
    });

    it('mints no token for an account that does not exist, nor for less than ten minutes', async () => {
      const namespace = await bench.namespace();
      const account = { name: 'emissary', namespace };
      await assert.rejects(bench.kube.token(account, 'istio-ca', 600), { code: 'ERR_KUBE_NOT_FOUND' });
      await bench.kube.create({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: account }, OTHER);
      await assert.rejects(bench.kube.token(account, 'istio-ca', 60), { code: 'ERR_KUBE_INVALID', status: 422 });
    });

    it('reviews tokens for the audiences that are asked for', async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(
        { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'emissary', namespace } },
        OTHER,
      );
      const { token } = await bench.kube.token({ name: 'emissary', namespace }, 'istio-ca', 600);
      const review = async (spec: object) => {
        const { apiVersion, kind } = RESOURCES.tokenReviews;
        const answer = await bench.kube.post(RESOURCES.tokenReviews, {
          apiVersion,
          kind,
          metadata: { name: '' },
          spec,
        });
        return answer.status as {
          authenticated?: boolean;
          audiences?: string[];
          user?: { username?: string; groups?: string[] };
          error?: string;
        };
      };
      const good = await review({ token, audiences: ['istio-ca', 'other'] });
      assert.equal(good.authenticated, true);
      assert.deepEqual(good.audiences, ['istio-ca']);
      assert.equal(good.user?.username, `system:serviceaccount:${namespace}:emissary`);
      assert.ok(good.user?.groups?.includes(`system:serviceaccounts:${namespace}`));
      for (const spec of [{ token, audiences: ['other'] }, { token }, { token: 'rubbish', audiences: ['istio-ca'] }]) {
        const bad = await review(spec);
        assert.notEqual(bad.authenticated, true);
        assert.ok(bad.error);
      }
    });

    it('accepts no token that it did not issue', async () => {
      const stranger = bench.connectAs('rubbish');
      await assert.rejects(stranger.list(RESOURCES.namespaces, {}), { code: 'ERR_KUBE_UNAUTHORIZED', status: 401 });
    });

    it('accepts a token of another audience nowhere', async () => {
      const namespace = await bench.namespace();
      await bench.kube.create(
        { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'emissary', namespace } },
        OTHER,
      );
      const { token } = await bench.kube.token({ name: 'emissary', namespace }, 'istio-ca', 600);
      await assert.rejects(bench.connectAs(token).list(RESOURCES.namespaces, {}), { status: 401 });
    });

    it('names the rule that a Role lacks', async () => {
      const namespace = await bench.namespace();
      const kube = await agent(namespace, []);
      await assert.rejects(
        kube.get({ apiVersion: 'v1', kind: 'Secret', namespace, name: 'istio-ca' }),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, 'ERR_KUBE_FORBIDDEN');
          assert.ok(
            error.message.includes(
              `{apiGroups: [""], resources: [secrets], resourceNames: [istio-ca], verbs: [get]} in namespace ${namespace}`,
            ),
            error.message,
          );
          return true;
        },
      );
    });

    it('allows get, list, watch and patch of exactly the named Secret', async () => {
      const namespace = await bench.namespace();
      const rule = {
        apiGroups: [''],
        resources: ['secrets'],
        resourceNames: ['ours'],
        verbs: ['get', 'list', 'watch', 'patch', 'create'],
      };
      const kube = await agent(namespace, [rule]);
      await bench.kube.create(secret(namespace, 'theirs', {}), OTHER);
      const made = await kube.apply(secret(namespace, 'ours', { x: '1' }), MANAGER);
      assert.deepEqual(await kube.get({ ...made, namespace, name: 'ours' }), made);
      const { items, resourceVersion } = await kube.list(RESOURCES.secrets, onlyNamed('ours', namespace));
      assert.equal(items.length, 1);
      const events = kube.watch(RESOURCES.secrets, { ...onlyNamed('ours', namespace), resourceVersion });
      const next = events[Symbol.asyncIterator]().next();
      await kube.apply(secret(namespace, 'ours', { x: '2' }), MANAGER);
      assert.equal((await next).value?.object.metadata.name, 'ours');
      const forbidden = { code: 'ERR_KUBE_FORBIDDEN' };
      await assert.rejects(kube.get({ ...made, namespace, name: 'theirs' }), forbidden);
      await assert.rejects(kube.list(RESOURCES.secrets, { namespace }), forbidden);
      await assert.rejects(kube.list(RESOURCES.secrets, onlyNamed('theirs', namespace)), forbidden);
      await assert.rejects(kube.apply(secret(namespace, 'theirs', { x: '2' }), MANAGER), forbidden);
      await assert.rejects(kube.delete({ ...made, namespace, name: 'ours' }, {}), forbidden);
    });

    it('needs create in addition to patch to apply an object that does not exist yet', async () => {
      const namespace = await bench.namespace();
      const kube = await agent(namespace, [
        { apiGroups: [''], resources: ['secrets'], resourceNames: ['ours'], verbs: ['patch'] },
      ]);
      await assert.rejects(kube.apply(secret(namespace, 'ours', {}), MANAGER), { code: 'ERR_KUBE_FORBIDDEN' });
    });

    it('reports what the connection may do', async () => {
      const namespace = await bench.namespace();
      const rule = { apiGroups: [''], resources: ['secrets'], resourceNames: ['ours'], verbs: ['get'] };
      const kube = await agent(namespace, [rule]);
      assert.equal(await canI(kube, 'get', RESOURCES.secrets, { namespace, name: 'ours' }), true);
      assert.equal(await canI(kube, 'get', RESOURCES.secrets, { namespace, name: 'theirs' }), false);
      assert.equal(await canI(kube, 'get', RESOURCES.secrets, { namespace }), false);
      assert.equal(await canI(kube, 'patch', RESOURCES.meshCertificates, { namespace, subresource: 'status' }), false);
      assert.equal(
        await canI(bench.kube, 'patch', RESOURCES.meshCertificates, { namespace, subresource: 'status' }),
        true,
      );
    });

    it('authorizes a status subresource separately from its object', async () => {
      const namespace = await bench.namespace();
      const rule = { apiGroups: ['meshcert.dev'], resources: ['meshcertificates/status'], verbs: ['patch'] };
      const kube = await agent(namespace, [rule]);
      assert.equal(await canI(kube, 'patch', RESOURCES.meshCertificates, { namespace, subresource: 'status' }), true);
      assert.equal(await canI(kube, 'patch', RESOURCES.meshCertificates, { namespace }), false);
    });
  });
}

const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';
