import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { eventually } from './parts/eventually.ts';
import {
  backend,
  backendGrant,
  backendRef,
  type Condition,
  configMap,
  envoyProxy,
  fromSecret,
  GATEWAYS,
  type GatewayLab,
  gateway,
  policy,
  portOf,
  route,
  SHOP,
  secret,
  serialOf,
  service,
  serviceRef,
  startGatewayLab,
  startUpstream,
  type Upstream,
  type UpstreamOptions,
  useProxy,
} from './parts/gateway-lab.ts';
import { type Authority, authority, type KeyPair } from './servers/authority.ts';
import { CONTROLLER_NAME } from './servers/envoy-gateway.ts';
import type { ApplyObject } from './servers/kube-client.ts';

const GREEN = { Accepted: 'True/Accepted', ResolvedRefs: 'True/ResolvedRefs' };
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const API = 'spiffe://cluster.local/ns/shop/sa/api';
const HOST = 'web.shop.svc.cluster.local';
const ISTIO_PROTOCOLS = ['istio-http/1.1', 'istio', 'http/1.1'];

let lab: GatewayLab;
let mesh: Authority;
const open: Upstream[] = [];

/** The client certificate in the Gateway, in its EnvoyProxy, in both, and nowhere. */
const gateways = {
  standard: gateway('standard', { tls: { backend: fromSecret('client-standard', 'mesh') } }),
  proxy: gateway('proxy', useProxy('proxy')),
  both: gateway('both', { ...useProxy('both'), tls: { backend: fromSecret('client-both') } }),
  none: gateway('none'),
};
const pairs = {} as Record<'standard' | 'proxy' | 'both' | 'backend', KeyPair>;

const client = (): Promise<KeyPair> => mesh.issue({ uri: ['spiffe://cluster.local/ns/gw/sa/gateway'] });
const leaf = (...uri: string[]): Promise<KeyPair> => mesh.issue({ uri });

async function upstream(options: Partial<UpstreamOptions> = {}): Promise<Upstream> {
  const started = await startUpstream({ leaf: options.leaf ?? (await leaf(WEB)), roots: mesh.root, ...options });
  open.push(started);
  await lab.envoyGateway.expose(started.port);
  return started;
}

/** A Service with an upstream, a policy for it and a route to it, all of the same name. */
async function serve(
  name: string,
  to: Upstream,
  through: readonly ApplyObject[],
  options: Parameters<typeof policy>[1] = { sans: [WEB] },
): Promise<void> {
  await lab.apply(...service(name, to), policy(name, options), route(name, through));
}

async function answers(through: ApplyObject, path: string, status: number): Promise<void> {
  const holds = async () => (await lab.ask(through, path)).status === status;
  await eventually(`${status} of ${path}`, holds, lab.envoyGateway.log);
}

async function refuses(through: ApplyObject, path: string, why: RegExp): Promise<void> {
  let last = '';
  const holds = async () => {
    last = await lab.refusal(through, path);
    return why.test(last);
  };
  // The end of what is logged is what a failure shows.
  const log = () => `${lab.envoyGateway.log()}\n${path} was last refused for: ${last}`;
  await eventually(`503 of ${path} for ${why}`, holds, log);
}

async function shows(through: ApplyObject, path: string, serial: string | null): Promise<void> {
  const holds = async () => (await lab.ask(through, path)).seen?.serial === serial;
  await eventually(`the certificate ${serial} at ${path}`, holds, lab.envoyGateway.log);
}

/** Two roots of one subject and key, one of them expired, and a leaf under both. */
function sameKey(): { readonly expired: string; readonly valid: string; readonly leaf: KeyPair } {
  const [now, day] = [Date.now(), 86_400_000];
  const old = SandboxCa.root({ notBefore: now - 2 * day, notAfter: now - day });
  const renewed = old.renew({ notBefore: now - day, notAfter: now + day });
  const { key, chain } = renewed.identity({ uris: [WEB], lifetimeMs: day });
  const pem = formatCertificates(chain);
  return {
    expired: `${old.root.pem}\n`,
    valid: `${renewed.root.pem}\n`,
    leaf: { certificate: pem, chain: pem, key: key.toPem() },
  };
}

interface Ancestor {
  readonly ancestorRef: { readonly kind: string; readonly name: string; readonly namespace: string };
  readonly controllerName: string;
  readonly conditions: readonly Condition[];
}

const brief = (conditions: readonly Condition[]): Record<string, string> =>
  Object.fromEntries(conditions.map(({ type, status, reason }) => [type, `${status}/${reason}`]));

async function policyStatus(name: string): Promise<readonly Ancestor[]> {
  const { status } = await lab.read(policy(name));
  return (status as { ancestors?: readonly Ancestor[] } | undefined)?.ancestors ?? [];
}

async function policyConditions(name: string): Promise<Record<string, string>> {
  return brief((await policyStatus(name))[0]?.conditions ?? []);
}

async function policyBecomes(name: string, wanted: Readonly<Record<string, string>>): Promise<void> {
  const holds = async () => isDeepStrictEqual(await policyConditions(name), wanted);
  await eventually(`the status ${JSON.stringify(wanted)} of ${name}`, holds, lab.envoyGateway.log);
}

async function gatewayConditions(object: ApplyObject): Promise<Record<string, string>> {
  return brief(((await lab.read(object)).status as { conditions: readonly Condition[] }).conditions);
}

async function routeConditions(name: string): Promise<Record<string, string>> {
  const { status } = await lab.read(route(name, []));
  const { parents } = (status ?? {}) as { parents?: readonly { conditions: readonly Condition[] }[] };
  return brief(parents?.[0]?.conditions ?? []);
}

async function routeBecomes(name: string, wanted: Readonly<Record<string, string>>): Promise<void> {
  const holds = async () => isDeepStrictEqual(await routeConditions(name), wanted);
  await eventually(`the status ${JSON.stringify(wanted)} of route ${name}`, holds, lab.envoyGateway.log);
}

before(async () => {
  mesh = await authority('mesh');
  lab = await startGatewayLab();
  await lab.apiserver.ensureNamespace('mesh');
  for (const name of ['standard', 'proxy', 'both', 'backend'] as const) pairs[name] = await client();
  await lab.apply(
    configMap('mesh-ca', { 'ca.crt': mesh.root }),
    {
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: 'ReferenceGrant',
      metadata: { name: 'gateways', namespace: 'mesh' },
      spec: {
        from: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', namespace: GATEWAYS }],
        to: [{ group: '', kind: 'Secret' }],
      },
    },
    secret('client-standard', pairs.standard, 'mesh'),
    secret('client-proxy', pairs.proxy),
    secret('client-both', pairs.both),
    secret('client-backend', pairs.backend, SHOP),
    envoyProxy('proxy', { ...fromSecret('client-proxy'), minVersion: '1.3', alpnProtocols: ISTIO_PROTOCOLS }),
    envoyProxy('both', { ...fromSecret('client-proxy'), minVersion: '1.3', alpnProtocols: ISTIO_PROTOCOLS }),
    ...Object.values(gateways),
  );
  const web = await upstream();
  await serve('web', web, Object.values(gateways));
  await lab.apply(
    backend('webc', web, fromSecret('client-backend')),
    policy('webc', { target: backendRef('webc'), sans: [WEB] }),
    route('webc', [gateways.none, gateways.both], backendRef('webc')),
  );
  for (const one of ['standard', 'proxy', 'both'] as const) await answers(gateways[one], '/web', 200);
  await answers(gateways.none, '/webc', 200);
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
  for (const one of open) await one[Symbol.asyncDispose]();
});

describe('Envoy Gateway', { concurrency: true }, () => {
  it('takes the client certificate from the Gateway, its EnvoyProxy, or the Backend, the last one first', async () => {
    const seen = async (through: ApplyObject, path: string) => (await lab.ask(through, path)).seen;
    // Envoy itself offers http/1.1 where nothing is configured.
    const as = (pair: KeyPair, alpn = 'http/1.1') => ({
      ...{ tls: true, serial: serialOf(pair), sni: HOST, alpn, version: 'TLSv1.3' },
    });
    assert.deepEqual(await seen(gateways.standard, '/web'), as(pairs.standard));
    assert.deepEqual(await seen(gateways.proxy, '/web'), as(pairs.proxy, 'istio-http/1.1'));
    assert.deepEqual(await seen(gateways.none, '/webc'), as(pairs.backend));
    // The Gateway's replaces everything that the EnvoyProxy says about TLS.
    assert.deepEqual(await seen(gateways.both, '/web'), as(pairs.both));
    assert.deepEqual(await seen(gateways.both, '/webc'), as(pairs.backend));
  });

  it('refuses an upstream with another identity or of another mesh, and says why only in the access log', async () => {
    const other = await authority('other');
    const to = await upstream();
    await lab.apply(configMap('other-ca', { 'ca.crt': other.root }));
    await serve('wrong-san', to, [gateways.proxy], { sans: [API] });
    await serve('wrong-ca', to, [gateways.proxy], { ca: 'other-ca', sans: [WEB] });
    const unknown = /^UF .*CERTIFICATE_VERIFY_FAILED.*(unable_to_get_local_issuer|self_signed)_certificate/;
    await Promise.all([
      refuses(gateways.proxy, '/wrong-san', /^UF .*CERTIFICATE_VERIFY_FAILED.*SAN_matcher/),
      refuses(gateways.proxy, '/wrong-ca', unknown),
      refuses(gateways.none, '/web', /^UC /),
    ]);
    for (const name of ['wrong-san', 'wrong-ca']) await policyBecomes(name, GREEN);
  });

  it('compares the host name with the certificate only while the policy names no SAN', async () => {
    const name = 'web.shop.serviceaccount.identity.linkerd.cluster.local';
    const linkerd = await upstream({ leaf: await mesh.issue({ dns: [name] }) });
    await serve('dns', linkerd, [gateways.proxy], { hostname: name });
    await serve('uri-alone', await upstream(), [gateways.proxy], {});
    await serve('several', await upstream({ leaf: await leaf(API) }), [gateways.proxy], { sans: [WEB, API] });
    await answers(gateways.proxy, '/dns', 200);
    await answers(gateways.proxy, '/several', 200);
    await refuses(gateways.proxy, '/uri-alone', /^UF /);
  });

  it('follows a Secret of the EnvoyProxy and of the Backend', async () => {
    const rotating = gateway('rotating', useProxy('rotating'));
    const [first, second] = [await client(), await client()];
    const write = (pair: KeyPair) => lab.apply(secret('rotating', pair), secret('rotating-backend', pair, SHOP));
    await write(first);
    await lab.apply(envoyProxy('rotating', fromSecret('rotating')), rotating);
    const to = await upstream();
    await serve('rotating', to, [rotating]);
    await lab.apply(
      backend('rotating-backend', to, fromSecret('rotating-backend')),
      policy('rotating-backend', { target: backendRef('rotating-backend'), sans: [WEB] }),
      route('rotating-backend', [rotating], backendRef('rotating-backend')),
    );
    await shows(rotating, '/rotating', serialOf(first));
    await shows(rotating, '/rotating-backend', serialOf(first));
    await write(second);
    await shows(rotating, '/rotating', serialOf(second));
    await shows(rotating, '/rotating-backend', serialOf(second));
  });

  it('uses a new certificate for new connections; an open one has the old certificate to its end, which can be set', async () => {
    const lasting = gateway('lasting', useProxy('lasting'));
    const [first, second, third] = [await client(), await client(), await client()];
    await lab.apply(secret('lasting', first), envoyProxy('lasting', fromSecret('lasting')), lasting);
    // One address, and so one connection: the name in a slice resolves to two.
    await lab.apply(
      backend('lasting', await upstream({ keepAlive: true })),
      policy('lasting', { target: backendRef('lasting'), sans: [WEB] }),
      route('lasting', [lasting], backendRef('lasting')),
    );
    await serve('closing', await upstream(), [lasting]);
    await shows(lasting, '/lasting', serialOf(first));
    await shows(lasting, '/closing', serialOf(first));
    await lab.apply(secret('lasting', second));
    await shows(lasting, '/closing', serialOf(second));
    assert.equal((await lab.ask(lasting, '/lasting')).seen?.serial, serialOf(first));
    await lab.apply({
      apiVersion: 'gateway.envoyproxy.io/v1alpha1',
      kind: 'BackendTrafficPolicy',
      metadata: { name: 'lasting', namespace: GATEWAYS },
      spec: {
        targetRefs: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'lasting' }],
        timeout: { http: { maxConnectionDuration: '1s' } },
      },
    });
    await shows(lasting, '/lasting', serialOf(second));
    await lab.apply(secret('lasting', third));
    await shows(lasting, '/lasting', serialOf(third));
  });

  it('honours two roots, but of one key the first in the ConfigMap decides, and an expired one refuses everything', async () => {
    const other = await authority('other');
    const { expired, valid, leaf: pair } = sameKey();
    await lab.apply(configMap('roots-of-one-ca', { 'ca.crt': expired + valid }));
    await serve('roots-of-one', await upstream({ leaf: pair }), [gateways.proxy], {
      ca: 'roots-of-one-ca',
      sans: [WEB],
    });
    await refuses(gateways.proxy, '/roots-of-one', /certificate_has_expired/);
    const contents: [string, number][] = [
      [valid + expired, 200],
      [other.root + expired + valid, 503],
      [other.root + valid, 200],
      [expired + valid, 503],
      [valid + other.root, 200],
    ];
    for (const [text, status] of contents) {
      await lab.apply(configMap('roots-of-one-ca', { 'ca.crt': text }));
      await answers(gateways.proxy, '/roots-of-one', status);
    }
  });

  it('keeps the last good roots when the new text has none, with a green status; an empty text means 500', async () => {
    // A Gateway of its own: its proxy refuses every other secret that comes together with the text.
    const own = gateway('text', useProxy('text'));
    await lab.apply(secret('text', await client()), envoyProxy('text', fromSecret('text')), own);
    await lab.apply(configMap('text-ca', { 'ca.crt': mesh.root }));
    await serve('text', await upstream(), [own], { ca: 'text-ca', sans: [WEB] });
    await answers(own, '/text', 200);
    await policyBecomes('text', GREEN);
    const rejected = async () => lab.envoyGateway.log().includes('text-ca');
    await lab.apply(configMap('text-ca', { 'ca.crt': 'no certificate' }));
    await eventually('the refusal in the log', rejected, lab.envoyGateway.log);
    assert.equal((await lab.ask(own, '/text')).status, 200);
    assert.deepEqual(await policyConditions('text'), GREEN);
    await lab.apply(configMap('text-ca', { 'ca.crt': '' }));
    await answers(own, '/text', 500);
  });

  it('keeps every status green with a pair whose key does not fit; a new route fails until other bytes come', async () => {
    const broken = gateway('broken', useProxy('broken'));
    const [good, other] = [await client(), await client()];
    await lab.apply(secret('broken', good), envoyProxy('broken', fromSecret('broken')), broken);
    await lab.apply(configMap('broken-ca', { 'ca.crt': mesh.root }));
    const to = await upstream();
    await serve('broken', to, [broken], { ca: 'broken-ca', sans: [WEB] });
    await shows(broken, '/broken', serialOf(good));

    await lab.apply(secret('broken', { ...good, key: other.key }));
    const refused = async () => /rejected the last update[\s\S]*KEY_VALUES_MISMATCH/.test(lab.envoyGateway.log());
    await eventually('the refusal in the log', refused, lab.envoyGateway.log);
    assert.equal((await lab.ask(broken, '/broken')).seen?.serial, serialOf(good));
    await serve('broken-new', to, [broken], { ca: 'broken-ca', sans: [WEB] });
    await answers(broken, '/broken-new', 503);
    for (const name of ['broken', 'broken-new']) {
      await policyBecomes(name, GREEN);
      await routeBecomes(name, GREEN);
    }

    const repaired = await client();
    await lab.apply(secret('broken', repaired));
    await shows(broken, '/broken', serialOf(repaired));
    await lab.apply(configMap('broken-ca', { 'ca.crt': `${mesh.root}\n` }));
    await shows(broken, '/broken-new', serialOf(repaired));
  });

  it('sends plaintext once a policy is deleted, and where none matches the port, without any status', async () => {
    await serve('unguarded', await upstream(), [gateways.proxy]);
    await answers(gateways.proxy, '/unguarded', 200);
    await lab.remove(policy('unguarded'));
    const plain = async () => (await lab.ask(gateways.proxy, '/unguarded')).seen?.tls === false;
    await eventually('plaintext', plain, lab.envoyGateway.log);

    const target = { ...serviceRef('misnamed'), sectionName: 'http' };
    await serve('misnamed', await upstream(), [gateways.proxy], { target, sans: [WEB] });
    await answers(gateways.proxy, '/misnamed', 200);
    assert.equal((await lab.ask(gateways.proxy, '/misnamed')).seen?.tls, false);
    assert.deepEqual(await policyStatus('misnamed'), []);
  });

  it('sends nothing while the ConfigMap, or the Secret of EnvoyProxy or Backend, is missing', async () => {
    const fragile = gateway('fragile', useProxy('fragile'));
    const pair = await client();
    const objects = {
      ca: configMap('fragile-ca', { 'ca.crt': mesh.root }),
      proxy: secret('fragile', pair),
      backend: secret('fragile-backend', pair, SHOP),
    };
    const to = await upstream();
    await lab.apply(...Object.values(objects), envoyProxy('fragile', fromSecret('fragile')), fragile);
    await serve('fragile', to, [fragile], { ca: 'fragile-ca', sans: [WEB] });
    await lab.apply(
      backend('fragile-backend', to, fromSecret('fragile-backend')),
      policy('fragile-backend', { target: backendRef('fragile-backend'), sans: [WEB] }),
      route('fragile-backend', [fragile], backendRef('fragile-backend')),
    );
    const cases: [ApplyObject, string, string][] = [
      [objects.ca, 'fragile', 'False/InvalidBackendTLS'],
      [objects.backend, 'fragile-backend', 'False/InvalidBackendTLS'],
      [objects.proxy, 'fragile', 'False/InvalidBackendTLS'],
    ];
    for (const [object, name, resolved] of cases) {
      await answers(fragile, `/${name}`, 200);
      await lab.remove(object);
      await answers(fragile, `/${name}`, 500);
      const unresolved = async () => (await routeConditions(name)).ResolvedRefs === resolved;
      await eventually('the status of the route', unresolved, lab.envoyGateway.log);
      await lab.apply(object);
      await answers(fragile, `/${name}`, 200);
    }
  });

  it('forgets the certificate of a Gateway whose Secret is gone, once it reads it again', async () => {
    const forgetful = gateway('forgetful', { tls: { backend: fromSecret('forgetful') } });
    const pair = await client();
    await lab.apply(secret('forgetful', pair), forgetful);
    await serve('forgetful', await upstream({ merelyAsks: true }), [forgetful]);
    await shows(forgetful, '/forgetful', serialOf(pair));
    await lab.remove(secret('forgetful', pair));
    await lab.apply({ ...forgetful, metadata: { ...forgetful.metadata, annotations: { read: 'again' } } });
    await shows(forgetful, '/forgetful', null);
    const unresolved = async () =>
      (await gatewayConditions(forgetful)).ResolvedRefs === 'False/InvalidClientCertificateRef';
    await eventually('the status of the Gateway', unresolved, lab.envoyGateway.log);
  });

  it('uses another SAN some time after it reports the new generation of the policy', async () => {
    await serve('renamed', await upstream({ leaf: await leaf(API) }), [gateways.proxy], { sans: [WEB] });
    await answers(gateways.proxy, '/renamed', 503);
    await lab.apply(policy('renamed', { sans: [WEB, API] }));
    const current = async () =>
      (await policyStatus('renamed'))[0]?.conditions.every((one) => one.observedGeneration === 2);
    await eventually('the status of the new generation', async () => (await current()) === true, lab.envoyGateway.log);
    await answers(gateways.proxy, '/renamed', 200);
  });

  it('reports each policy for each Gateway, under its own controller name', async () => {
    await serve('reported', await upstream(), [gateways.proxy, gateways.standard]);
    const two = async () => (await policyStatus('reported')).length === 2;
    await eventually('the status for both', two, lab.envoyGateway.log);
    for (const { ancestorRef, controllerName, conditions } of await policyStatus('reported')) {
      assert.equal(controllerName, CONTROLLER_NAME);
      assert.deepEqual([ancestorRef.kind, ancestorRef.namespace], ['Gateway', GATEWAYS]);
      assert.deepEqual(brief(conditions), GREEN);
      assert.deepEqual(
        conditions.map(({ observedGeneration }) => observedGeneration),
        [1, 1],
      );
    }

    const second = {
      ...policy('second', { target: { ...serviceRef('reported'), sectionName: 'https' }, sans: [API] }),
    };
    await lab.apply(second);
    const conflicted = async () => (await policyConditions('second')).Accepted === 'False/Conflicted';
    await eventually('the conflict', conflicted, lab.envoyGateway.log);
    await answers(gateways.proxy, '/reported', 200);

    await serve('untrusted', await upstream(), [gateways.proxy], { ca: 'missing-ca', sans: [WEB] });
    await answers(gateways.proxy, '/untrusted', 500);
    await policyBecomes('untrusted', {
      Accepted: 'False/NoValidCACertificate',
      ResolvedRefs: 'False/InvalidCACertificateRef',
    });
  });

  it('prefers a policy for a port to an older one for the whole Service', async () => {
    await serve('whole', await upstream(), [gateways.proxy], { target: serviceRef('whole'), sans: [API] });
    await refuses(gateways.proxy, '/whole', /SAN_matcher/);
    await policyBecomes('whole', GREEN);
    await lab.apply(policy('whole-port', { target: { ...serviceRef('whole'), sectionName: 'https' }, sans: [WEB] }));
    await answers(gateways.proxy, '/whole', 200);
    await policyBecomes('whole-port', GREEN);
  });

  it('answers 500 for a Backend of another namespace, and says RefNotPermitted, until a ReferenceGrant is there', async () => {
    const elsewhere = (object: ApplyObject): ApplyObject => ({
      ...object,
      metadata: { ...object.metadata, namespace: GATEWAYS },
    });
    const to = await upstream();
    const target = { ...backendRef('far'), namespace: GATEWAYS };
    await lab.apply(
      elsewhere(configMap('mesh-ca', { 'ca.crt': mesh.root })),
      elsewhere(backend('far', to, fromSecret('client-proxy'))),
      elsewhere(policy('far', { target: backendRef('far'), sans: [WEB] })),
      route('far', [gateways.proxy], target),
    );
    await answers(gateways.proxy, '/far', 500);
    const refused = async () => (await routeConditions('far')).ResolvedRefs === 'False/RefNotPermitted';
    await eventually('the status of the route', refused, lab.envoyGateway.log);
    const { status } = await lab.read(elsewhere(policy('far')));
    assert.equal(status, undefined, 'the policy says nothing of it');
    await lab.apply(backendGrant('far'));
    await answers(gateways.proxy, '/far', 200);
  });

  it('names a kind of CA that it does not know, and sends nothing', async () => {
    const { spec, ...rest } = policy('unknown-kind', { sans: [WEB] });
    const { validation, ...more } = spec as { validation: object };
    const caCertificateRefs = [{ group: '', kind: 'Service', name: 'unknown-kind' }];
    await lab.apply(...service('unknown-kind', await upstream()), {
      ...rest,
      spec: { ...more, validation: { ...validation, caCertificateRefs } },
    });
    await lab.apply(route('unknown-kind', [gateways.proxy]));
    await answers(gateways.proxy, '/unknown-kind', 500);
    await policyBecomes('unknown-kind', { Accepted: 'False/NoValidCACertificate', ResolvedRefs: 'False/InvalidKind' });
  });

  it('has definitions that refuse a policy without CA or host name, or with more than five SANs', async () => {
    const invalid = (change: object) => {
      const { spec, ...rest } = policy('invalid');
      const { validation, ...more } = spec as { validation: object };
      return { ...rest, spec: { ...more, validation: { ...validation, ...change } } };
    };
    const uris = (count: number) => Array.from({ length: count }, (_, at) => ({ type: 'URI', uri: `${WEB}${at}` }));
    await assert.rejects(lab.apply(invalid({ caCertificateRefs: undefined })), /422 /);
    await assert.rejects(lab.apply(invalid({ hostname: undefined })), /422 /);
    await assert.rejects(lab.apply(invalid({ subjectAltNames: uris(6) })), /422 /);
    await lab.apply(invalid({ subjectAltNames: uris(5) }));
  });

  it('shows in the admin endpoint of Envoy which certificate it has loaded', async () => {
    const has = (text: string, pair: KeyPair) => text.toLowerCase().includes(serialOf(pair).toLowerCase());
    const loaded = await lab.envoyGateway.admin(`${GATEWAYS}/proxy`, '/certs');
    assert.ok(has(loaded, pairs.proxy), loaded);
    assert.ok(portOf(gateways.proxy) > 0);
  });
});

// By itself: whatever else changes makes Envoy Gateway read such a Secret again.
it('follows the Secret of a Gateway only while an EnvoyProxy, used or not, names it', async () => {
  const [first, second, third, fourth] = [await client(), await client(), await client(), await client()];
  const followed = gateway('followed', { tls: { backend: fromSecret('followed') } });
  await lab.apply(secret('followed', first), followed);
  await serve('followed', await upstream(), [followed]);
  await shows(followed, '/followed', serialOf(first));
  await policyBecomes('followed', GREEN);

  await lab.apply(secret('followed', second));
  for (let request = 0; request < 100; request++) {
    assert.equal((await lab.ask(followed, '/followed')).seen?.serial, serialOf(first));
  }
  await lab.apply({ ...followed, metadata: { ...followed.metadata, annotations: { read: 'again' } } });
  await shows(followed, '/followed', serialOf(second));

  const unused = envoyProxy('unused', fromSecret('followed'));
  await lab.apply(unused);
  for (const pair of [third, fourth]) {
    await lab.apply(secret('followed', pair));
    await shows(followed, '/followed', serialOf(pair));
  }
});
