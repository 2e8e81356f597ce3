import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { linkerdConfig } from '../../adapters/linkerd/config.ts';
import { readControlPlane, targetRules } from '../../adapters/linkerd/control-plane.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { drive } from '../../test/support/drive.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { Trigger } from '../async/trigger.ts';
import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import { CONSENT_ANNOTATION } from '../core/consent.ts';
import { EMISSARY_RESOURCES, type EmissaryConfig, MAPPING_FIELD_MANAGER } from '../gateway/emissary/config.ts';

import { emissary } from '../gateway/emissary/gateway.ts';
import type { Target } from '../gateway/emissary/routes.ts';
import type { Gateway } from '../gateway/gateway.ts';
import { connect } from '../kube/client.ts';
import type { Targeting, TargetRules } from '../mesh/cluster.ts';
import { silentLog } from '../mesh/log.ts';
import { FIELD_MANAGER, type KubeObject, OWNER_LABEL } from '../objects/objects.ts';
import { alone } from './election.ts';
import { Informer } from './informers.ts';
import { RouteKeeper, type RouteKeeperOptions } from './routes.ts';

import { BatchGap } from './write-order.ts';

const config = linkerdConfig.parse({ serviceAccount: { name: 'emissary' } });
const LINKERD = targetRules(config, readControlPlane(config, { values: 'clusterDomain: cluster.local\n' }));
const idOf = (account: string) => `${account}.shop.serviceaccount.identity.linkerd.cluster.local`;

class Rules implements Targeting {
  #rules: TargetRules | undefined;
  readonly #changed = new Trigger();

  set(rules: TargetRules): void {
    this.#rules = rules;
    this.#changed.fire();
  }

  async *targets(signal: AbortSignal): AsyncGenerator<TargetRules> {
    for (;;) {
      await this.#changed.wait(signal);
      if (this.#rules) yield this.#rules;
    }
  }
}

type Options = Partial<Pick<RouteKeeperOptions, 'targeting' | 'dryRun'>> & { readonly spec?: EmissaryConfig };

const SPEC: EmissaryConfig = {
  tlsContext: { enabled: true, name: 'linkerd', ambassadorIds: [] },
  mappings: { selector: { matchLabels: { mesh: 'linkerd' } }, namespaces: ['*'] },
};

const COMMON: Omit<MeshCertificateSpec, 'gateways'> = {
  mesh: { name: 'linkerd', config: {} },
  secretName: 'linkerd-identity',
  caSecretName: 'linkerd-ca',
  labels: {},
  renewal: { at: 0.6, jitter: 0.06 },
  trust: { retainMs: 0, holdMs: 0, withdrawn: [] },
  paused: false,
  deletionPolicy: 'Retain',
};

async function withKeeper(options: Options, test: (world: Awaited<ReturnType<typeof startWorld>>) => Promise<void>) {
  const world = await startWorld(options);
  try {
    await test(world);
  } finally {
    await world.stop();
  }
}

async function startWorld(options: Options) {
  const clock = new FakeClock();
  const api = await startKubeApi({ clock, tls: false, namespaces: ['emissary', 'shop'] });
  const client = (userAgent: string) => connect({ kubeconfigText: api.kubeconfig(), userAgent, clock });
  const kube = client('keeper');
  const test = client('test');
  const sharedInformers = new Informer({ kube, clock, random: () => 0.5, log: silentLog });
  const batchGap = new BatchGap(clock, [emissary]);
  const rules = new Rules();
  rules.set(LINKERD);
  const errors: Error[] = [];
  const running = new AbortController();
  let changes = 0;
  const { spec: config = SPEC, ...given } = options;
  const keeper = new RouteKeeper({
    kube,
    sharedInformers,
    clock,
    random: () => 0.5,
    log: silentLog,
    dryRun: false,
    mesh: { title: 'Linkerd', tls: {} },
    isPublished: () => false,
    certificate: {
      metadata: { name: 'linkerd', namespace: 'emissary' },
      spec: { ...COMMON, gateways: { emissary: config } },
    },
    gateway: emissary as Gateway,
    targeting: rules,
    batchGap,
    onChange: () => {
      changes++;
      // What the agent does after each change.
      sync().catch(() => {});
    },
    onError: (error) => errors.push(error),
    ...given,
  });
  const sync = () => keeper.sync(running.signal, alone.fence(''));
  const run = keeper.run(running.signal);

  const until = (what: string, done: () => boolean | Promise<boolean>) => drive(clock, done, { what });
  const get = (name: string, kind = 'Mapping') =>
    test.get({ apiVersion: 'getambassador.io/v3alpha1', kind, namespace: 'shop', name });
  const tlsOf = async (name: string, kind?: string) => ((await get(name, kind))?.spec as { tls?: string })?.tls;

  return {
    api,
    clock,
    keeper,
    targets: () => keeper.targets() as readonly Target[],
    kube: test,
    rules,
    batchGap,
    errors,
    until,
    get,
    tlsOf,
    get changes() {
      return changes;
    },
    state: (name: string) => keeper.states().find((state) => state.name === name),
    writes: () =>
      api.requests.entries.filter(
        ({ userAgent, verb }) => userAgent === 'keeper' && !['get', 'list', 'watch'].includes(verb),
      ),
    mapping: (
      name: string,
      spec: object = {},
      labels: Record<string, string> = { mesh: 'linkerd' },
      kind = 'Mapping',
    ) =>
      api.put({
        apiVersion: 'getambassador.io/v3alpha1',
        kind,
        metadata: { name, namespace: 'shop', labels, annotations: { [CONSENT_ANNOTATION]: 'emissary' } },
        spec: { hostname: '*', prefix: `/${name}/`, service: `https://${name}.shop:443`, ...spec },
      }),
    context: (name: string, sni?: string) =>
      api.put({
        apiVersion: 'getambassador.io/v3alpha1',
        kind: 'TLSContext',
        metadata: { name, namespace: 'emissary', labels: { [OWNER_LABEL]: 'emissary.linkerd' } },
        spec: { secret: 'linkerd-identity', ...(sni && { sni }) },
      }),
    /** A Service and one meshed pod of an account. */
    backend: (
      name: string,
      account = name,
      labels: Record<string, string> = { 'linkerd.io/control-plane-ns': 'linkerd' },
    ) => {
      const backend: KubeObject[] = [
        {
          apiVersion: 'v1',
          kind: 'Service',
          metadata: { name, namespace: 'shop' },
          spec: { clusterIP: '10.0.0.9', ports: [{ name: 'http', port: 443 }] },
        },
        {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: `${name}-0`, namespace: 'shop', labels },
          spec: { serviceAccountName: account, containers: [{ name: 'app', image: 'app' }] },
        },
        {
          apiVersion: 'discovery.k8s.io/v1',
          kind: 'EndpointSlice',
          metadata: { name: `${name}-1`, namespace: 'shop', labels: { 'kubernetes.io/service-name': name } },
          addressType: 'IPv4',
          ports: [{ name: 'http', port: 8443 }],
          endpoints: [{ addresses: ['10.1.0.1'], targetRef: { kind: 'Pod', name: `${name}-0`, namespace: 'shop' } }],
        },
      ];
      for (const object of backend) api.put(object);
    },
    async stop() {
      running.abort(new Error('test over'));
      await run;
      kube.close();
      test.close();
      await api.stop();
    },
  };
}

describe('the keeper of Mappings', () => {
  it('requests a context for each target, and names it in the Mapping only after it exists', () =>
    withKeeper({}, async (world) => {
      const { targets, until, tlsOf, state } = world;
      world.backend('web');
      world.mapping('web');
      await until('a target', () => targets().length === 1);
      assert.deepEqual(targets(), [{ contextName: 'linkerd-web-shop', sni: idOf('web') }]);
      assert.equal(state('web')?.state, 'waiting');
      await world.clock.advance(60_000);
      assert.equal(await tlsOf('web'), undefined);

      world.context('linkerd-web-shop', idOf('web'));
      await until('set', () => state('web')?.state === 'ok');
      assert.equal(await tlsOf('web'), 'linkerd-web-shop');
      const mine = (await world.get('web'))?.metadata.managedFields?.find(
        (entry) => entry.manager === MAPPING_FIELD_MANAGER,
      );
      assert.deepEqual(mine?.fieldsV1, { 'f:spec': { 'f:tls': {} } });
      assert.equal(mine?.operation, 'Apply');
    }));

  it('writes each Mapping once, and nothing while nothing changes', () =>
    withKeeper({}, async (world) => {
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      for (const name of ['a', 'b']) world.mapping(name, { service: 'https://web.shop' });
      world.mapping(
        'c',
        { service: 'web.shop:443', port: 9000, prefix: undefined, hostname: undefined },
        undefined,
        'TCPMapping',
      );
      await world.until('set', () => {
        return world.keeper.states().length === 3 && world.keeper.states().every(({ state }) => state === 'ok');
      });
      assert.equal(await world.tlsOf('c', 'TCPMapping'), 'linkerd-web-shop');
      const { changes } = world;
      for (let times = 0; times < 3; times++) {
        await world.keeper.sync(new AbortController().signal, alone.fence(''));
        await world.clock.advance(60_000);
      }
      assert.equal(world.writes().length, 3);
      assert.equal(world.changes, changes);
    }));

  it('never writes within 2 s of a Secret', () =>
    withKeeper({}, async (world) => {
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      const secret = await world.batchGap.beforeSecret(new AbortController().signal);
      world.mapping('web');
      await world.until('judged', () => world.state('web')?.state === 'waiting');
      await world.clock.advance(10_000);
      assert.equal(world.writes().length, 0, 'while the Secret is being written');
      secret[Symbol.dispose]();
      const at = world.clock.now();
      await world.until('set', () => world.state('web')?.state === 'ok');
      assert.ok((world.writes()[0]?.at ?? 0) - at >= 2_000);
    }));

  it('moves a Mapping when its pods move to another account, and keeps the old context until then', () =>
    withKeeper({}, async (world) => {
      const { targets, until } = world;
      const names = () => targets().map(({ contextName }) => contextName);
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      world.mapping('web');
      await until('set', () => world.state('web')?.state === 'ok');

      world.backend('web', 'web2');
      await until('two contexts', () => names().length === 2);
      assert.deepEqual(names(), ['linkerd-web-shop', 'linkerd-web2-shop']);
      assert.equal(await world.tlsOf('web'), 'linkerd-web-shop');
      world.context('linkerd-web2-shop', idOf('web2'));
      await until('the old one is free', () => names().length === 1);
      assert.deepEqual(names(), ['linkerd-web2-shop']);
      assert.equal(await world.tlsOf('web'), 'linkerd-web2-shop');
    }));

  it('leaves a Mapping as it is when its pods lose their proxy, and keeps the context that it names', () =>
    withKeeper({}, async (world) => {
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      world.mapping('web');
      await world.until('set', () => world.state('web')?.state === 'ok');
      world.backend('web', 'web', {});
      await world.until('left', () => world.state('web')?.state === 'ERR_TARGET_UNMESHED');
      assert.equal(await world.tlsOf('web'), 'linkerd-web-shop');
      assert.deepEqual(world.targets(), [{ contextName: 'linkerd-web-shop', sni: idOf('web') }]);
    }));

  it('never takes over a Mapping that belongs to somebody else', () =>
    withKeeper({}, async (world) => {
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      world.mapping('web', { tls: 'mine' });
      await world.until('left', () => world.state('web')?.state === 'ERR_TARGET_FOREIGN_TLS');
      assert.equal(world.writes().length, 0);
      assert.equal(await world.tlsOf('web'), 'mine');
    }));

  it('does not recreate a Mapping that was deleted just before the write', () =>
    withKeeper({}, async (world) => {
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      world.api.fault({
        match: ({ verb, plural }) => verb === 'patch' && plural === 'mappings',
        times: 1,
        met: async () => {
          await world.kube.delete(
            { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping', namespace: 'shop', name: 'web' },
            {},
          );
        },
      });
      world.mapping('web');
      await world.until('gone', () => world.writes().length > 0 && world.keeper.states().length === 0);
      assert.equal(await world.get('web'), undefined);
    }));

  it('reports why it could not write, and retries', () =>
    withKeeper({}, async (world) => {
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      const lift = world.api.fault({
        match: ({ verb, plural }) => verb === 'patch' && plural === 'mappings',
        status: 403,
      });
      world.mapping('web');
      await world.until('a code', () => world.state('web')?.state === 'ERR_KUBE_FORBIDDEN');
      lift();
      await world.until('set', () => world.state('web')?.state === 'ok');
    }));

  it('reports which namespace it may not read, and continues with the others', () =>
    withKeeper({}, async (world) => {
      const { kube } = world;
      await kube.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'dark' } }, { fieldManager: 'test' });
      world.api.fault({ match: ({ namespace, plural }) => namespace === 'dark' && plural === 'pods', status: 403 });
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      world.mapping('web');
      world.mapping('other', { service: 'https://x.dark' });
      await world.until('set', () => world.state('web')?.state === 'ok');
      await world.until('the refusal', () => /forbidden|403/i.test(world.state('other')?.message ?? ''));
      assert.equal(world.state('other')?.state, 'ERR_TARGET_UNSEEN');
    }));

  it('watches the namespaces behind its Mappings, until no Mapping leads there', () =>
    withKeeper({}, async (world) => {
      const idle = () => world.api.watches;
      await world.until('complete', () => world.keeper.complete);
      await world.until('three watches', () => idle() === 3);
      world.mapping('web');
      await world.until('six watches', () => idle() === 6);
      await world.kube.delete(
        { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping', namespace: 'shop', name: 'web' },
        {},
      );
      await world.until('three watches', () => idle() === 3);
    }));

  it('retires nothing before the mesh has reported its rules', async () => {
    const late = new Rules();
    await withKeeper({ targeting: late }, async (world) => {
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      world.mapping('web', { tls: 'linkerd-web-shop' });
      await settle();
      await world.clock.advance(10_000);
      assert.equal(world.keeper.complete, false);
      late.set(LINKERD);
      await world.until('complete', () => world.keeper.complete);
      assert.deepEqual(world.targets(), [{ contextName: 'linkerd-web-shop', sni: idOf('web') }]);
    });
  });

  it('writes nothing on a dry run, but reports what it would write', () =>
    withKeeper({ dryRun: true }, async (world) => {
      world.backend('web');
      world.context('linkerd-web-shop', idOf('web'));
      world.mapping('web');
      await world.until('judged', () => world.state('web')?.state === 'waiting');
      await world.clock.advance(60_000);
      assert.equal(world.writes().length, 0);
    }));
});

describe('the keeper of Mappings of a mesh with one context', () => {
  const one = {
    spec: { ...SPEC, tlsContext: { enabled: true, name: 'istio', ambassadorIds: ['default'], sni: 'web' } },
    targeting: undefined,
  };

  it('knows its target at once, and reads no pods', () =>
    withKeeper(one, async (world) => {
      assert.deepEqual(world.targets(), [{ contextName: 'istio', sni: 'web' }]);
      world.context('istio');
      world.mapping('web', { service: 'https://web-sidecar-proxy' });
      await world.until('set', () => world.state('web')?.state === 'ok');
      assert.equal(await world.tlsOf('web'), 'istio');
      assert.equal(world.api.requests.count({ resource: 'pods' }), 0);
    }));

  it('without a selector reports the routes that name it, and writes nothing', () =>
    withKeeper({ ...one, spec: { tlsContext: one.spec.tlsContext } }, async (world) => {
      world.api.put({
        apiVersion: 'getambassador.io/v3alpha1',
        kind: 'Mapping',
        metadata: { name: 'here', namespace: 'emissary' },
        spec: { hostname: '*', prefix: '/', service: 'https://web.shop', tls: 'istio' },
      });
      world.context('istio');
      await world.until('reported', () => world.state('here') !== undefined);
      assert.equal(world.state('here')?.state, 'ok');
      assert.equal(world.writes().length, 0);
    }));

  it('keeps a context under its former name while a Mapping names it', () =>
    withKeeper(one, async (world) => {
      world.context('former');
      world.context('istio');
      world.mapping('web', { tls: 'former' }, {});
      await world.until('both', () => world.targets().length === 2);
      await world.kube.merge(
        { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping', namespace: 'shop', name: 'web' },
        { spec: { tls: 'istio' } },
        { fieldManager: 'kubectl' },
      );
      await world.until('one', () => world.targets().length === 1);
      assert.deepEqual(world.targets(), [{ contextName: 'istio', sni: 'web' }]);
    }));
});

describe('shared informers', () => {
  it('share one watch between equal views', async () => {
    const clock = new FakeClock();
    const api = await startKubeApi({ clock, tls: false });
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: FIELD_MANAGER, clock });
    const sharedInformers = new Informer({ kube, clock, random: () => 0.5, log: silentLog });
    const nothing = { changed() {}, failed() {} };
    const views = [1, 2, 3].map(() => sharedInformers.view({ resource: EMISSARY_RESOURCES.mappings }, nothing));
    try {
      await drive(clock, () => api.watches > 0 && views.every(({ synced }) => synced));
      await drive(clock, () => api.watches === 1);
      assert.equal(api.requests.count({ verb: 'watch', resource: 'mappings' }), 1);
      for (const view of views) view[Symbol.dispose]();
      await drive(clock, () => api.watches === 0);
    } finally {
      kube.close();
      await api.stop();
    }
  });
});
