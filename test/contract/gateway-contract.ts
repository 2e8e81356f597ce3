import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { rbacFor } from '../../src/config/rbac.ts';
import type { MeshCertificate } from '../../src/config/schema/mesh-certificate.ts';
import { validateObject } from '../../src/config/validate.ts';
import { desiredObjects, publicationRefs } from '../../src/gateway/desired.ts';
import {
  type Gateway,
  type GatewayUse,
  type ObservedObjects,
  ORDER,
  type RouteInput,
} from '../../src/gateway/gateway.ts';

import { ownerLabel, ownLabels } from '../../src/gateway/publication.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import {
  fields,
  type KubeObject,
  keyOf,
  describe as nameOf,
  type ObjectRef,
  refOf,
} from '../../src/objects/objects.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';

/** A gateway under test. */
export interface GatewaySubject {
  readonly gateway: Gateway;
  /** Fields of `spec` by which a MeshCertificate uses it and selects `route`. */
  readonly spec: Readonly<Record<string, unknown>>;
  /** A route as its user wrote it, in the MeshCertificate's own namespace. */
  readonly route: KubeObject;
  /** The same route, no longer selected. */
  unselected(route: KubeObject): KubeObject;
  /** Other objects that a verdict depends on, as the cluster holds them; routes among them stay as they are. */
  readonly beside?: readonly KubeObject[];
  /** What a user writes so that nothing depends on the publication any more; absent: the unselected route. */
  released?(route: KubeObject): readonly KubeObject[];
  /** What the cluster must serve. */
  readonly definitions?: readonly object[];
}

const META = { name: 'istio', namespace: NAMESPACE };
const ca = SandboxCa.root();
const identity = ca.identity({ uris: ['spiffe://cluster.local/ns/emissary/sa/emissary'], lifetimeMs: 3_600_000 });

/** What the agent relies on, for any gateway. */
export function gatewayContract(name: string, subject: GatewaySubject): void {
  const { gateway, spec, route, unselected, beside = [], definitions } = subject;
  const { released = (one) => [unselected(one)] } = subject;
  const certificate = (more: Readonly<Record<string, unknown>> = {}): MeshCertificate => {
    const object = {
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: META,
      spec: { istio: { ca: { address: 'istiod:15012', serviceAccount: 'emissary' } }, ...spec, ...more },
    };
    const result = validateObject(structuredClone(object), adapters, [gateway]);
    assert.ok(result.ok, JSON.stringify(result));
    return result.value;
  };
  const inputOf = ({ metadata, spec: common }: MeshCertificate) => ({
    meta: { ...META, uid: metadata.uid },
    spec: common,
    config: common.gateways[gateway.kind],
    mesh: adapters.find(({ mesh }) => mesh === 'istio'),
  });
  const observe = (routes: readonly KubeObject[], own: readonly KubeObject[] = []): ObservedObjects => ({
    ...{ routes: [...routes, ...beside], own },
    behind: (kind) => beside.filter((object) => object.kind === kind),
    unseen: new Map(),
    hidden: () => undefined,
    unserved: new Set(),
  });
  const judged = (one: MeshCertificate, observed = observe([route])) => gateway.routes.judge(inputOf(one), observed);
  /** The verdict on the route under test. */
  const verdictOn = (one: MeshCertificate, observed = observe([route])) =>
    judged(one, observed).verdicts.find((verdict) => keyOf(refOf(verdict.route)) === keyOf(refOf(route)));
  const useOf = (one: MeshCertificate, targets: readonly unknown[] | undefined): GatewayUse => ({
    ...{ gateway, targets },
    config: one.spec.gateways[gateway.kind],
  });
  /** What is published once the route is changed. */
  const written = (one: MeshCertificate, targets = judged(one, observe([changed(one)])).targets) =>
    desiredObjects({
      ...{ meta: META, spec: one.spec, tls: {}, identity, bundle: [ca.root], since: new Map() },
      uses: [useOf(one, targets)],
    }).toSorted((a, b) => a.order - b.order);
  /** As the API server would store them. */
  const standing = (one: MeshCertificate) =>
    written(one).flatMap(({ object, gateway: kind }) => (kind === undefined ? [] : [object]));
  const changed = (one: MeshCertificate): KubeObject => {
    const verdict = verdictOn(one);
    assert.ok(verdict && 'target' in verdict.outcome);
    const { change } = verdict.outcome.target;
    return { ...route, spec: { ...fields(route.spec), ...fields(change?.fields.spec) } };
  };

  describe(`${name} keeps the contract of gateways`, () => {
    it('returns equal objects, targets and references for equal inputs, whatever the order of what it observes', () => {
      const other: KubeObject = { ...route, metadata: { ...route.metadata, name: 'another' } };
      const one = judged(certificate(), observe([route, other]));
      const two = judged(certificate(), observe([structuredClone(other), structuredClone(route)]));
      assert.deepEqual(one.targets, two.targets);
      assert.deepEqual(written(certificate(), one.targets), written(certificate(), two.targets));
      const refs = (targets: readonly unknown[]) => publicationRefs(certificate(), [useOf(certificate(), targets)]);
      assert.deepEqual(refs(one.targets), refs(two.targets));
    });

    it('writes the bundle, the pair, and then its own objects, all of which carry the owner label', () => {
      const objects = written(certificate());
      const own = objects.filter((one) => one.gateway === gateway.kind);
      assert.ok(own.length > 0);
      assert.ok(own.every(({ order }) => order >= ORDER.gateway));
      assert.deepEqual(
        objects.slice(0, 2).map(({ object }) => object.metadata.name),
        [certificate().spec.caSecretName, certificate().spec.secretName],
      );
      for (const { object } of objects) {
        for (const [key, value] of Object.entries(ownLabels(META, {}))) {
          assert.equal(object.metadata.labels?.[key], value, nameOf(refOf(object)));
        }
      }
    });

    it('lists in its references all that it writes, in the same order, and the kinds as its own', () => {
      for (const targets of [judged(certificate()).targets, undefined]) {
        const refs = publicationRefs(certificate(), [useOf(certificate(), targets)]).map(keyOf);
        const objects = desiredOf(certificate(), targets).map((object) => keyOf(refOf(object)));
        assert.deepEqual(
          refs.filter((ref) => objects.includes(ref)),
          objects,
        );
      }
      for (const object of standing(certificate())) {
        const { apiVersion, kind } = object;
        assert.ok(
          apiVersion === 'v1' || gateway.resources.some((one) => one.apiVersion === apiVersion && one.kind === kind),
        );
      }
    });

    it('names a Secret only after it was written, and stops naming it before it is deleted', () => {
      const { targets } = judged(certificate(), observe([changed(certificate())]));
      const order = publicationRefs(certificate(), [useOf(certificate(), targets)]).map(keyOf);
      const at = (ref: ObjectRef) => order.indexOf(keyOf(ref));
      const isRoute = (ref: ObjectRef) => keyOf(ref) === keyOf(refOf(route));
      let named = 0;
      for (const object of [...standing(certificate()), changed(certificate())]) {
        const by = refOf(object);
        for (const { namespace, name: secret } of gateway.secretsNamedBy(object, standing(certificate()))) {
          named += 1;
          const of = at({ apiVersion: 'v1', kind: 'Secret', namespace, name: secret });
          // Routes are changed after everything is written.
          assert.ok(of >= 0 && (isRoute(by) || of < at(by)), `${nameOf(by)} names Secret ${secret}`);
        }
      }
      assert.ok(named > 0, 'some object names the pair');
    });

    it('has the right to read and write all that it references, and to change selected routes, and to no more Secrets', () => {
      const one = certificate({ deletionPolicy: 'Delete' });
      const account = { name: 'meshcert', namespace: NAMESPACE };
      const options = { leaseName: 'meshcert', shards: 1, resources: true, name: 'meshcert' };
      const roles = rbacFor([one], { ...options, serviceAccount: account, adapters, gateways: [gateway] });
      const may = allows(roles);
      const { targets } = judged(one, observe([changed(one)]));
      for (const ref of publicationRefs(one, [useOf(one, targets)])) {
        for (const verb of ['get', 'list', 'watch', 'create', 'patch', 'delete']) {
          assert.ok(may(verb, ref, pluralOf(ref, gateway)), `${verb} ${nameOf(ref)}`);
        }
      }
      const { routes, own } = gateway.routes.scopes(inputOf(one));
      for (const { resource, namespace, name: only = 'any' } of [...routes, ...own]) {
        for (const verb of ['get', 'list', 'watch']) {
          const any = { ...resource, namespace: namespace ?? NAMESPACE, name: only };
          assert.ok(may(verb, any, resource.plural), `${verb} ${resource.plural}`);
        }
      }
      const [{ resource } = assert.fail()] = routes.filter((scope) => scope.resource.kind === route.kind);
      const change = verdictOn(one)?.outcome;
      if (change && 'target' in change && change.target.change) assert.ok(may('patch', refOf(route), resource.plural));
      const foreign = { apiVersion: 'v1', kind: 'Secret', namespace: NAMESPACE, name: 'foreign' };
      for (const verb of ['get', 'list', 'watch', 'patch', 'delete']) assert.ok(!may(verb, foreign, 'secrets'), verb);
    });

    it('requests one change of a selected route, and none once that is made', () => {
      const one = certificate();
      const before = verdictOn(one);
      assert.ok(before && 'target' in before.outcome && !before.outcome.target.isSet && before.selected);
      assert.ok(written(one).some(({ object }) => keyOf(refOf(object)) === targetKey(before)));
      const after = verdictOn(one, observe([changed(one)], standing(one)));
      assert.ok(after && 'target' in after.outcome && after.outcome.target.isSet);
      assert.equal(targetKey(after), targetKey(before));
    });

    it('reports which of our objects a route depends on for as long as it uses it, selected or not', () => {
      const one = certificate();
      const own = standing(one);
      for (const used of [changed(one), unselected(changed(one))]) {
        assert.ok(gateway.routes.concern(inputOf(one), own)(used), 'the route concerns us');
        const verdict = verdictOn(one, observe([used], own));
        assert.ok(verdict?.dependsOn, 'the route depends on an object');
        assert.ok(written(one).some(({ object }) => keyOf(refOf(object)) === keyOf(verdict.dependsOn as ObjectRef)));
      }
      const other = unselected({ ...route, metadata: { ...route.metadata, name: 'other' } });
      const concerned = [other].filter(gateway.routes.concern(inputOf(one), own));
      const { verdicts } = judged(one, observe(concerned, own));
      assert.ok(
        verdicts.every((verdict) => verdict.route.metadata.name !== 'other'),
        'a route that has nothing to do with us',
      );
    });

    it('selects nothing and makes nothing once its fields are gone, and finds what it made and who uses it', () => {
      const one = certificate();
      const config = one.spec.gateways[gateway.kind];
      const { left } = gateway;
      if (!left) return;
      const recorded = left.of(config, NAMESPACE);
      const read = left.read(JSON.parse(JSON.stringify(recorded)));
      assert.deepEqual(read, recorded);
      assert.deepEqual(left.of(read, NAMESPACE), recorded);
      for (const foreign of [undefined, 'x', {}]) assert.equal(left.read(foreign), undefined);

      const after = { ...one, spec: { ...one.spec, gateways: { [gateway.kind]: read } } };
      const places = (of: MeshCertificate) =>
        gateway.routes
          .scopes(inputOf(of))
          .own.map(({ resource, namespace, name: only }) => [resource.plural, namespace, only].join(' '));
      assert.deepEqual(places(after), places(one));
      const { verdicts, targets } = judged(after, { ...observe([]), routes: [route] });
      assert.ok(verdicts.every(({ selected }) => !selected));
      assert.deepEqual(
        desiredOf(after, targets).filter(({ kind }) => kind !== 'Secret'),
        [],
      );
      const own = standing(one);
      assert.ok(gateway.routes.concern(inputOf(after), own)(changed(one)), 'the route concerns us');
      const verdict = verdictOn(after, observe([changed(one)], own));
      assert.ok(verdict?.dependsOn && !verdict.selected);
    });

    it('refuses a name of a Secret that it would misread, before anything is written', () => {
      const [problem] = ['istio-certs', 'toy', 'a.b'].filter((one) => gateway.secretNameProblem(one) !== undefined);
      if (problem === undefined) return;
      const one = certificate();
      assert.throws(() => written({ ...one, spec: { ...one.spec, secretName: problem } }), {
        code: 'ERR_GATEWAY_NAME',
      });
    });

    it('never loses the Secret that it uses while the agent retires a publication', async () => {
      await using world = await AgentWorld.start({ objects: [...(definitions ?? [])] });
      world.gateways = [gateway];
      for (const object of [...beside, route]) world.api.put(object);
      const checked: string[] = [];
      const broken: string[] = [];
      world.api.fault({
        match: ({ verb, plural }) => verb === 'delete' && plural !== 'meshcertificates',
        met: async (asked) => {
          checked.push(`${asked.plural} ${asked.name}`);
          broken.push(...(await harmOf(world, gateway, inputOf(certificate()), asked)));
        },
      });
      world.putCertificate({ ...spec, deletionPolicy: 'Delete' });
      world.follow();
      await world.untilReady();
      const input = inputOf(certificate());
      await world.until('the route uses our object', async () => (await usesOurs(world, gateway, input)) !== undefined);

      await world.kube.delete({ apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', ...META }, {});
      await world.until('the deletion waits for the route', () => world.status?.lastError?.code === 'ERR_RETIRE_WAITS');
      assert.equal(checked.length, 0, 'nothing was taken away');
      for (const object of released(route)) world.api.put(object);
      await world.until('all is gone', async () => (await world.secret('istio-ca')) === undefined);
      assert.deepEqual(broken, []);
      assert.ok(checked.indexOf('secrets istio-identity') > 0 && checked.at(-1) === 'secrets istio-ca', checked.join());
    });
  });

  function desiredOf(one: MeshCertificate, targets: readonly unknown[] | undefined): readonly KubeObject[] {
    return desiredObjects({
      ...{ meta: META, spec: one.spec, tls: {}, identity, bundle: [ca.root], since: new Map() },
      uses: [useOf(one, targets)],
    })
      .toSorted((a, b) => a.order - b.order)
      .map(({ object }) => object);
  }

  function targetKey({ outcome }: ReturnType<typeof judged>['verdicts'][number]): string {
    assert.ok('target' in outcome);
    return keyOf(outcome.target.object);
  }
}

/** The objects that would still name a Secret about to be deleted, and the routes that would lose their object. */
async function harmOf(
  world: AgentWorld,
  gateway: Gateway,
  input: RouteInput<unknown>,
  asked: { readonly plural: string; readonly name?: string | undefined },
): Promise<readonly string[]> {
  const all = await listAll(world, gateway);
  if (asked.plural === 'secrets') {
    return all.flatMap((object) =>
      gateway.secretsNamedBy(object, all).some(({ name }) => name === asked.name)
        ? [`${nameOf(refOf(object))} lost Secret ${asked.name}`]
        : [],
    );
  }
  const plurals = new Map(gateway.resources.map(({ kind, plural }) => [kind, plural]));
  const own = all.filter(({ metadata }) => metadata.labels?.['meshcert.dev/owner'] === ownerLabel(META));
  const routes = all.filter((object) => !own.includes(object)).filter(gateway.routes.concern(input, own));
  const { verdicts } = gateway.routes.judge(input, seen(all, routes, own));
  return verdicts.flatMap(({ route, dependsOn }) =>
    dependsOn && plurals.get(dependsOn.kind) === asked.plural && dependsOn.name === asked.name
      ? [`${nameOf(refOf(route))} lost ${nameOf(dependsOn)}`]
      : [],
  );
}

async function usesOurs(
  world: AgentWorld,
  gateway: Gateway,
  input: RouteInput<unknown>,
): Promise<KubeObject | undefined> {
  const all = await listAll(world, gateway);
  const own = all.filter(({ metadata }) => metadata.labels?.['meshcert.dev/owner'] === ownerLabel(META));
  const routes = all.filter((object) => !own.includes(object)).filter(gateway.routes.concern(input, own));
  const { verdicts } = gateway.routes.judge(input, seen(all, routes, own));
  return verdicts.find(({ dependsOn }) => dependsOn !== undefined)?.route;
}

const seen = (
  all: readonly KubeObject[],
  routes: readonly KubeObject[],
  own: readonly KubeObject[],
): ObservedObjects => ({
  ...{ routes, own, unseen: new Map(), unserved: new Set() },
  behind: (kind) => all.filter((object) => object.kind === kind),
  hidden: () => undefined,
});

/** Kinds of Kubernetes itself that a gateway may look at. */
const CORE = [RESOURCES.services, RESOURCES.endpointSlices, RESOURCES.pods, RESOURCES.configMaps];

async function listAll(world: AgentWorld, { resources }: Gateway): Promise<readonly KubeObject[]> {
  const lists = await Promise.all(
    [...resources, ...CORE].map((kind) => world.kube.list(kind, {}).catch(() => ({ items: [] }))),
  );
  return lists.flatMap(({ items }) => items);
}

function pluralOf({ apiVersion, kind }: ObjectRef, { resources }: Gateway): string {
  const found = resources.find((one) => one.apiVersion === apiVersion && one.kind === kind);
  return found?.plural ?? `${kind.toLowerCase()}s`;
}

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

/** As the RBAC authorizer decides. */
const allows =
  (roles: readonly KubeObject[]) =>
  (verb: string, ref: ObjectRef, plural: string): boolean => {
    const group = ref.apiVersion.includes('/') ? ref.apiVersion.split('/')[0] : '';
    const inPlace = roles.filter(
      ({ kind, metadata }) => kind === 'ClusterRole' || (kind === 'Role' && metadata.namespace === ref.namespace),
    );
    return inPlace
      .flatMap((role) => role.rules as readonly Rule[])
      .some(
        (rule) =>
          rule.apiGroups.includes(group ?? '') &&
          rule.resources.includes(plural) &&
          rule.verbs.includes(verb) &&
          (rule.resourceNames === undefined || rule.resourceNames.includes(ref.name)),
      );
  };
