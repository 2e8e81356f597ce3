import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { connect as tlsConnect } from 'node:tls';
import { adapters } from '../../adapters/index.ts';
import { Pod, type PodOptions } from '../../sandbox/linkerd/pod.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { listen, type SandboxUpstream, startUpstream } from '../../sandbox/tls/upstream.ts';
import { systemClock } from '../../src/async/clock.ts';
import { diagnose } from '../../src/doctor/doctor.ts';
import { findGateways, type PodFiles } from '../../src/gateway/emissary/reading.ts';

import type { Identity } from '../../src/mesh/identity.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { exampleOf as example, ISTIO, LINKERD, material, objectsOf, readExamples, THEIRS } from './examples.ts';
import type { Judge } from './judge.ts';
import { checkJudged, type Place } from './judged.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const { ca, other, texts } = material();
const { base } = readExamples();
/** The same Mapping in its usual form. */
const withoutScheme = (yaml: string) => yaml.replaceAll('https://web.shop', 'web.shop');
const codesOf = (objects: readonly KubeObject[]): string[] =>
  diagnose({ adapters, objects, now: Date.now(), whole: new Set() }).map(({ code }) => code);
const context = (spec: string, name = 'mesh', namespace = 'emissary'): string => `
apiVersion: getambassador.io/v3alpha1
kind: TLSContext
metadata: {name: ${name}, namespace: ${namespace}, labels: {team: edge}}
spec: {hosts: [], ${spec}}
---
`;
/** `data` says which text of the page's material each key has. */
const secret = (name: string, namespace: string, data: Readonly<Record<string, string>>, type = 'Opaque'): string => `
apiVersion: v1
kind: Secret
metadata: {name: ${name}, namespace: ${namespace}, labels: {team: edge}}
type: ${type}
data: {${Object.entries(data).map(([key, text]) => `${key}: '\${${text}}'`)}}
---
`;
const PAIR = { 'tls.crt': 'leaf', 'tls.key': 'key' };
const mapping = (name: string, spec: string): string => `
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: ${name}, namespace: emissary}
spec: {hostname: '*', prefix: /${name}/, ${spec}}
---
`;
const BOTH = 'secret: mesh-identity, ca_secret: mesh-ca';
const ALPN = "alpn_protocols: 'istio-http/1.1,istio,http/1.1'";

/** How a workload of the mesh and an impostor with another CA see a request. */
interface Seen {
  readonly workload: string;
  readonly impostor: string;
}
const RIGHT: Seen = { workload: ISTIO, impostor: 'refused' };
const NONE: Seen = { workload: 'refused', impostor: 'refused' };

/** A workload of Istio whose sidecar serves a port that is declared as HTTP. Answers like `startUpstream`. */
export interface Sidecar extends AsyncDisposable {
  /** Under PeerAuthentication STRICT: only TLS, whatever application protocols are offered. */
  readonly strict: { readonly port: number };
  /** Under PERMISSIVE: plaintext, and TLS that offers one of the mesh's application protocols. */
  readonly permissive: { readonly port: number };
  /** The application itself, in plaintext, to which an ambient node forwards connections other than HBONE. */
  readonly application: { readonly port: number };
}

export interface TrapPlace {
  readonly name: Place;
  readonly judge: () => Promise<Judge>;
  readonly sidecar: (identity: Identity, roots: readonly Certificate[]) => Promise<Sidecar>;
  /** The expected reason of a refused configuration, by code; default anything. */
  readonly refusals?: Readonly<Record<string, RegExp>>;
}

/**
 * Defines a test for each trap whose harm is visible on the wire: doctor finds it in the objects, the harm occurs, and
 * after the fix that docs/checks.md gives, both are gone.
 */
export function judgeTraps(place: TrapPlace): void {
  const judged = new Set<string>();
  const trapTest = (code: string, harm: string, act: () => Promise<void>) => {
    judged.add(code);
    it(`${code}: ${harm}`, act);
  };
  let judge: Judge;
  let workload: SandboxUpstream;
  let impostor: SandboxUpstream;
  let sidecar: Sidecar;
  before(async () => {
    judge = await place.judge();
    workload = await upstreamOf(ca);
    impostor = await startUpstream({
      identity: identityOf(other, 'spiffe://other/impostor'),
      trust: () => [ca.certificate],
      anonymous: true,
      plaintext: true,
    });
    sidecar = await place.sidecar(identityOf(ca)(), [ca.certificate]);
  });
  after(async () => {
    await judge?.[Symbol.asyncDispose]();
    await workload?.stop();
    await impostor?.stop();
    await sidecar?.[Symbol.asyncDispose]();
  });

  const identityOf = (authority: SandboxCa, uri = 'spiffe://cluster.local/ns/shop/sa/web') => {
    const identity = authority.identity({ uris: [uri], lifetimeMs: HOUR });
    return () => identity;
  };
  /** A workload that requires a certificate of the mesh. */
  const upstreamOf = (authority: SandboxCa) =>
    startUpstream({ identity: identityOf(authority), trust: () => [ca.certificate] });
  const ask = async (upstream: { readonly port: number }, path?: string): Promise<string> => {
    judge.aim(upstream.port);
    return judge.request(path);
  };
  const seen = async (path?: string): Promise<Seen> => ({
    workload: await ask(workload, path),
    impostor: await ask(impostor, path),
  });
  const start = async (objects: readonly KubeObject[], pod?: PodFiles) =>
    assert.equal(await judge.start(objects, pod), undefined);
  const change = async (objects: readonly KubeObject[], pod?: PodFiles) =>
    assert.equal(await judge.change(objects, pod), undefined);
  /** The objects of an example, in which doctor finds the trap. */
  const trap = (code: string, ...more: readonly string[]): KubeObject[] => {
    const objects = objectsOf(texts, base, example(code), ...more);
    assert.ok(codesOf(objects).includes(code), `doctor finds ${code} before anything is applied`);
    return objects;
  };
  /** The objects after the fix on the page; doctor finds nothing more. */
  const fixed = (...yaml: readonly string[]): KubeObject[] => {
    const objects = objectsOf(texts, base, ...yaml);
    assert.deepEqual(codesOf(objects), ['MC1307'], 'after the fix doctor keeps to the note that is always true');
    return objects;
  };

  it('without a fault, the workload sees the certificate of the gateway, and the impostor nothing', async () => {
    await start(fixed());
    assert.deepEqual(await seen(), RIGHT);
  });

  const gatewayWith = (name: string, value: string) =>
    base
      .split('---\n')
      .slice(0, 1)
      .map((deployment) => `${deployment.trimEnd()}\n          env: [{name: ${name}, value: '${value}'}]\n---\n`)
      .join('');

  /** Code, and the fix if removing the example is not enough. */
  const FAIL_OPEN: readonly (readonly [code: string, fix?: string, trap?: string])[] = [
    ['MC1001'],
    ['MC1002'],
    ['MC1006'],
    ['MC1007'],
    ['MC1011'],
    ['MC1012'],
    ['MC1101'],
    ['MC1102'],
    ['MC1103'],
    ['MC1104', secret('mesh-ca', 'emissary', { 'tls.crt': 'roots', 'ca.crt': 'roots' })],
    [
      'MC1107',
      `${example('MC1107')}---${context(`secret: mesh-identity.certs, ca_secret: mesh-ca, secret_namespacing: true, ${ALPN}`)}`,
    ],
    [
      'MC1108',
      `${example('MC1108')}---${context(`secret: istio.default, ca_secret: mesh-ca, secret_namespacing: false, ${ALPN}`)}`,
    ],
    [
      'MC1109',
      `${example('MC1109')}---${context(`${BOTH}, ${ALPN}`)}${secret('mesh-identity', 'emissary', PAIR)}${secret('mesh-ca', 'emissary', { 'tls.crt': 'roots' })}`,
    ],
    [
      'MC1204',
      gatewayWith('AMBASSADOR_FORCE_SECRET_VALIDATION', 'true'),
      gatewayWith('AMBASSADOR_FORCE_SECRET_VALIDATION', 'true'),
    ],
  ];
  for (const [code, fix = '', more = ''] of FAIL_OPEN) {
    trapTest(code, `the impostor is taken for the upstream, in plaintext where the Mapping has no scheme`, async () => {
      await start(trap(code, more));
      assert.deepEqual(await seen(), { workload: 'refused', impostor: 'anonymous' });
      await start(objectsOf(texts, withoutScheme(base), withoutScheme(example(code)), more));
      assert.deepEqual(await seen(), { workload: 'refused', impostor: 'plaintext' });
      await start(fixed(fix));
      assert.deepEqual(await seen(), RIGHT);
    });
  }

  trapTest('MC1005', `the upstream is not verified, and the impostor is believed`, async () => {
    await start(trap('MC1005'));
    assert.equal(await ask(impostor), ISTIO);
    await start(fixed());
    assert.deepEqual(await seen(), RIGHT);
  });

  trapTest('MC1305', 'requests go out in plaintext, or to whoever answers where the service says https', async () => {
    await start(trap('MC1305'));
    assert.deepEqual(await seen(), { workload: 'refused', impostor: 'plaintext' });
    await start(objectsOf(texts, base, example('MC1305').replace('web.shop:80', 'https://web.shop:80')));
    assert.deepEqual(await seen(), { workload: 'refused', impostor: 'anonymous' });
    await start(fixed());
    assert.deepEqual(await seen(), RIGHT);
  });

  const FROZEN: readonly (readonly [code: string, trap?: string])[] = [
    ['MC1004'],
    ['MC1011', secret('mesh-crl', 'emissary', { 'tls.crt': 'roots' })],
    [
      'MC1103',
      context(`secret: mesh-identity, ${ALPN}`) +
        secret('mesh-identity', 'emissary', { 'tls.key': 'key', 'user.key': 'key' }),
    ],
    ['MC1104', secret('mesh-ca', 'emissary', { 'ca.crt': 'roots', 'crl.pem': 'roots' })],
    ['MC1201'],
    ['MC1202'],
    ['MC1203'],
  ];
  for (const [code, more = ''] of FROZEN) {
    trapTest(
      code,
      'the whole configuration is refused, and a Mapping that is right does not come into force',
      async () => {
        const { [code]: reason = /./ } = place.refusals ?? {};
        await start(objectsOf(texts, base));
        const later = mapping('later', "service: 'https://web.shop:80', tls: mesh");
        assert.match((await judge.change(trap(code, more))) ?? '', reason);
        assert.match((await judge.change(trap(code, more, later))) ?? '', reason);
        assert.equal(await ask(workload, '/later/'), 'absent');
        await change(fixed(later));
        assert.deepEqual(await seen('/later/'), RIGHT);
      },
    );
  }

  /** Nothing verifies any more, in one direction or the other: requests end with 503. */
  const BROKEN = ['MC1009', 'MC1105', 'MC1205', 'MC1207', 'MC1304', 'MC2003'];
  for (const code of BROKEN) {
    trapTest(code, `no request reaches the workload`, async () => {
      await start(trap(code));
      assert.deepEqual(await seen(), NONE);
      await start(fixed());
      assert.deepEqual(await seen(), RIGHT);
    });
  }

  trapTest('MC1003', 'a Mapping uses the certificate of another team', async () => {
    await start(trap('MC1003'));
    assert.equal(await ask(workload, '/theirs/'), ISTIO);
    const renamed = example('MC1003')
      .replace('{name: mesh, ', '{name: shop-mesh, ')
      .replace('tls: mesh', 'tls: shop-mesh');
    await start(fixed(renamed));
    assert.equal(await ask(workload, '/theirs/'), THEIRS);
    assert.equal(await ask(workload), ISTIO);
  });

  trapTest('MC1008', 'files that rotate on disk are not loaded, whatever else changes', async () => {
    const directory = '/etc/istio-certs';
    const pod = (leaf = '', key = ''): PodFiles => ({
      files: new Map([
        [`${directory}/cert-chain.pem`, leaf],
        [`${directory}/key.pem`, key],
        [`${directory}/root-cert.pem`, texts.roots ?? ''],
      ]),
    });
    const before = pod(texts.leaf, texts.key);
    const rotated = pod(texts['their.leaf'], texts['their.key']);
    await start(trap('MC1008'), before);
    assert.deepEqual(await seen(), RIGHT);
    const objects = trap('MC1008', mapping('later', "service: 'https://later.shop:80', tls: mesh"));
    await change(objects, rotated);
    assert.equal(await ask(workload), ISTIO, 'still the certificate of before');
    await start(fixed());
    await change(objectsOf({ ...texts, leaf: texts['their.leaf'] ?? '', key: texts['their.key'] ?? '' }, base));
    assert.equal(await ask(workload), THEIRS);
  });

  trapTest(
    'MC1106',
    'a root that was replaced beside an unchanged pair is still trusted, and the new one is not',
    async () => {
      const moved = { ...texts, roots: texts['other.roots'] ?? '' };
      await start(trap('MC1106'));
      assert.deepEqual(await seen(), RIGHT);
      await change(objectsOf(moved, base, example('MC1106')));
      await change(
        objectsOf(moved, base, example('MC1106'), mapping('later', "service: 'https://later.shop:80', tls: mesh")),
      );
      assert.deepEqual(await seen(), RIGHT);
      await start(fixed());
      await change(objectsOf(moved, base));
      assert.deepEqual(await seen(), { workload: 'refused', impostor: ISTIO });
    },
  );

  trapTest(
    'MC1111',
    'when its owner is uninstalled, the Secret goes, and the impostor is taken for the upstream',
    async () => {
      const uninstalled = (objects: readonly KubeObject[]) =>
        objects.filter(({ metadata }) => !metadata.ownerReferences?.some(({ name }) => name === 'cert-agent'));
      await start(trap('MC1111'));
      assert.deepEqual(await seen(), RIGHT);
      await change(uninstalled(trap('MC1111')));
      assert.deepEqual(await seen(), { workload: 'refused', impostor: 'anonymous' });
      await start(fixed());
      await change(uninstalled(fixed()));
      assert.deepEqual(await seen(), RIGHT);
    },
  );

  trapTest('MC1203', 'a sidecar refuses Ed25519 from clients, and P-521 in TLS 1.3', async () => {
    const with13 = context(`${BOTH}, ${ALPN}, min_tls_version: v1.3, max_tls_version: v1.3`);
    const keys = {
      'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
      'P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
      'P-521': generateKeyPairSync('ec', { namedCurve: 'P-521' }),
      ed25519: generateKeyPairSync('ed25519'),
      'RSA 2048': generateKeyPairSync('rsa', { modulusLength: 2048 }),
    };
    const found: Record<string, unknown> = {};
    for (const [name, { publicKey, privateKey }] of Object.entries(keys)) {
      const leaf = ca.issue(publicKey, { uris: [ISTIO], lifetimeMs: DAY }).pem;
      const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
      const objects = objectsOf({ ...texts, leaf, key }, base, with13);
      await start(objects);
      found[name] = [await ask(sidecar.strict), codesOf(objects).includes('MC1203')];
    }
    assert.deepEqual(found, {
      'P-256': [ISTIO, false],
      'P-384': [ISTIO, false],
      'P-521': ['refused', true],
      ed25519: ['refused', true],
      'RSA 2048': [ISTIO, false],
    });
  });

  trapTest(
    'MC1208',
    'roots of another mesh refuse the workload and let the impostor in; without intermediates, the workload refuses',
    async () => {
      await start(trap('MC1208'));
      assert.deepEqual(await seen(), { workload: 'refused', impostor: ISTIO });
      const below = ca.intermediate().identity({ uris: [ISTIO], lifetimeMs: HOUR });
      const [leaf, intermediate] = below.chain.map(({ pem }) => pem);
      const pair = { ...texts, leaf: leaf ?? '', key: below.key.toPem() };
      const alone = objectsOf(pair, base);
      assert.ok(codesOf(alone).includes('MC1208'));
      await start(alone);
      assert.deepEqual(await seen(), NONE);
      const whole = objectsOf({ ...pair, leaf: `${leaf}${intermediate}` }, base);
      assert.deepEqual(codesOf(whole), ['MC1307']);
      await start(whole);
      assert.deepEqual(await seen(), RIGHT);
    },
  );

  trapTest('MC1209', 'when the root ends, everything below it is refused', async () => {
    const now = Date.now();
    const ended = SandboxCa.root({ notBefore: now - 100 * DAY, notAfter: now - HOUR });
    await using late = disposable(await upstreamOf(ended));
    trap('MC1209');
    const objects = objectsOf({ ...texts, 'roots.and.expiring': ended.certificate.pem }, base, example('MC1209'));
    assert.ok(codesOf(objects).includes('MC1209'));
    await start(objects);
    assert.equal(await ask(late), 'refused');
    await start(fixed());
    assert.deepEqual(await seen(), RIGHT);
  });

  describe('MC1209: an expired root and its successor with the same subject and key', () => {
    const now = Date.now();
    const ended = SandboxCa.root({ name: 'same', notBefore: now - 100 * DAY, notAfter: now - HOUR });
    const renewed = ended.renew({ notBefore: now - HOUR, notAfter: now + 100 * DAY });
    const others = Array.from({ length: 31 }, (_, n) => SandboxCa.root({ name: `other ${n}` }));
    const bundle = (...roots: SandboxCa[]) =>
      objectsOf({ ...texts, roots: roots.map(({ certificate }) => certificate.pem).join('') }, base);
    const found = (objects: readonly KubeObject[]) =>
      diagnose({ adapters, objects, now, whole: new Set() }).find(({ code }) => code === 'MC1209');
    let late: SandboxUpstream;
    before(async () => {
      late = await upstreamOf(renewed);
    });
    after(() => late?.stop());

    trapTest('MC1209', 'it hides its successor, unless that comes first', async () => {
      const [bad, good] = [bundle(ended, renewed), bundle(renewed, ended)];
      assert.match(found(bad)?.message ?? '', /comes after it in the bundle: Envoy finds the expired one first/);
      assert.match(found(bad)?.fix ?? '', /put its successor before it/);
      assert.deepEqual(
        [bad, good].map((objects) => found(objects)?.severity),
        ['error', 'warning'],
      );
      await start(bad);
      assert.equal(await ask(late), 'refused');
      await start(good);
      assert.equal(await ask(late), ISTIO);
    });

    trapTest('MC1209', 'in a bundle of more than 16 roots it hides its successor that comes first', async () => {
      const [bad, good] = [bundle(renewed, ...others, ended), bundle(renewed, ...others)];
      assert.equal(found(bad)?.severity, 'error');
      assert.match(found(bad)?.message ?? '', /sorts bundles of more than 16 roots/);
      assert.match(found(bad)?.fix ?? '', /remove it from the bundle; another order helps only up to 16 roots/);
      assert.equal(found(good), undefined);
      await start(bad);
      assert.equal(await ask(late), 'refused');
      await start(good);
      assert.equal(await ask(late), ISTIO);
    });
  });

  for (const code of ['MC1301', 'MC1302']) {
    trapTest(
      code,
      `on the day when the Secret is missing, requests go out in plaintext; with https:// they do not`,
      async () => {
        const withoutSecret = (objects: readonly KubeObject[]) =>
          objects.filter(({ metadata }) => metadata.name !== 'mesh-identity');
        const objects = trap(code);
        await start(objects);
        assert.deepEqual(await seen(), RIGHT);
        await change(withoutSecret(objects));
        assert.equal(await ask(impostor), 'plaintext');
        await start(fixed());
        await change(withoutSecret(fixed()));
        assert.deepEqual(await seen(), { workload: 'refused', impostor: 'anonymous' });
      },
    );
  }

  trapTest('MC1303', 'the second Mapping by name.namespace shows the certificate of the first', async () => {
    const objects = trap('MC1303');
    const found = diagnose({ adapters, objects, now: Date.now(), whole: new Set() });
    assert.equal(found.find(({ code }) => code === 'MC1303')?.object.metadata.name, 'web');
    await start(objects);
    assert.equal(await ask(workload), THEIRS);
    assert.equal(await ask(workload, '/two/'), THEIRS);
    await start(fixed(example('MC1303').replace('web.shop:80', 'web.shop.svc:80')));
    assert.equal(await ask(workload, '/two/'), THEIRS);
    assert.equal(await ask(workload), ISTIO);
  });

  trapTest('MC1303', 'two spellings of one service are one cluster too', async () => {
    const here = (name: string, spec: string) => mapping(name, spec).replace('namespace: emissary', 'namespace: shop');
    const two = example('MC1303').split('---\n').slice(0, 2).join('---\n');
    for (const [first, second] of [
      ['web:80', 'web.shop:80'],
      ['web.shop', 'web.shop:'],
    ]) {
      const both = (second: string) =>
        `${two}---${here('one', `service: 'https://${first}', tls: mesh`)}${here('two', `service: 'https://${second}', tls: other`)}`;
      const objects = objectsOf(texts, base, both(second ?? ''));
      assert.ok(codesOf(objects).includes('MC1303'), `${first} and ${second}`);
      await start(objects);
      if (first === 'web:80') assert.equal(await ask(workload, '/two/'), ISTIO);
    }
    await start(
      fixed(
        `${two}---${here('one', "service: 'https://web:80', tls: mesh")}${here('two', "service: 'https://web.shop.svc:80', tls: other")}`,
      ),
    );
    assert.equal(await ask(workload, '/two/'), THEIRS);
  });

  trapTest('MC1308', 'the Mapping has no route', async () => {
    const resolver = (name: string) => `
apiVersion: getambassador.io/v3alpha1
kind: ConsulResolver
metadata: {name: ${name}, namespace: emissary}
spec: {address: 'consul-server.consul:8500', datacenter: dc1}
---
`;
    const unknown = mapping('web', "service: 'https://web:80', tls: mesh, resolver: dc1");
    for (const objects of [trap('MC1308'), trap('MC1308', resolver('dc2'), unknown)]) {
      await start(objects);
      assert.deepEqual(await seen(), { workload: 'absent', impostor: 'absent' });
    }
    assert.ok(!codesOf(objectsOf(texts, base, resolver('dc1'), unknown)).includes('MC1308'));
    await start(fixed());
    assert.deepEqual(await seen(), RIGHT);
  });

  trapTest('MC1307', 'any workload of the mesh passes for the upstream', async () => {
    const neighbour = identityOf(ca, 'spiffe://cluster.local/ns/other/sa/other');
    await using another = disposable(await startUpstream({ identity: neighbour, trust: () => [ca.certificate] }));
    await start(trap('MC1307'));
    assert.equal(await ask(another), ISTIO);
  });

  trapTest(
    'MC1110',
    'as soon as the sidecar has files, their certificate is shown and not that of the Secret',
    async () => {
      const madeUp = objectsOf(
        texts,
        secret('istio-certs', 'emissary', { 'tls.crt': 'their.leaf', 'tls.key': 'their.key' }),
      )[0];
      await start(trap('MC1110'), { files: new Map() });
      assert.equal(await ask(workload), ISTIO);
      await start(trap('MC1110'), { files: new Map(), madeUp });
      assert.equal(await ask(workload), THEIRS);
      await start(fixed(gatewayWith('AMBASSADOR_ISTIO_SECRET_DIR', '/etc/istio-certs')), { files: new Map(), madeUp });
      assert.equal(await ask(workload), ISTIO);
    },
  );

  trapTest('MC1401', 'an older Emissary keeps the certificate that its sidecar has replaced on disk', async () => {
    const made = (leaf: string, key: string): PodFiles => ({
      files: new Map(),
      madeUp: objectsOf(texts, secret('istio-certs', 'emissary', { 'tls.crt': leaf, 'tls.key': key }))[0],
    });
    const names = context(`secret: istio-certs, ca_secret: mesh-ca, ${ALPN}`);
    const rotation = async (objects: readonly KubeObject[]) => {
      await start(objects, made('leaf', 'key'));
      assert.equal(await ask(workload), ISTIO);
      await change(objects, made('their.leaf', 'their.key'));
      return ask(workload);
    };
    assert.equal(await rotation(trap('MC1401', names)), ISTIO);
    const upgraded = objectsOf(texts, base, gatewayWith('AMBASSADOR_ISTIO_SECRET_DIR', '/etc/istio-certs'), names);
    assert.ok(!codesOf(upgraded).includes('MC1401'));
    assert.equal(await rotation(upgraded), THEIRS);
  });

  trapTest(
    'MC1402',
    'a Secret and a Mapping in one batch leave the other Mappings on the old certificate',
    async () => {
      const later = mapping('later', "service: 'https://later.shop:80', tls: mesh");
      const rotated = { ...texts, leaf: texts['their.leaf'] ?? '', key: texts['their.key'] ?? '' };
      const apart = async (yaml: string) => {
        const objects = objectsOf(texts, base, yaml);
        const batchMs = findGateways(objects)[0]?.env.batchMs ?? 0;
        await start(objects);
        // With the agent's own gap.
        if (batchMs < 2_000) await change(objectsOf(rotated, base, yaml));
        await change(objectsOf(rotated, base, yaml, later));
        return ask(workload);
      };
      trap('MC1402');
      assert.equal(await apart(example('MC1402')), ISTIO);
      fixed(gatewayWith('AMBASSADOR_RECONFIG_MAX_DELAY', '1'));
      assert.equal(await apart(gatewayWith('AMBASSADOR_RECONFIG_MAX_DELAY', '1')), THEIRS);
    },
  );

  trapTest('MC1406', 'the sidecar wraps the TLS of the gateway, which the workload does not expect', async () => {
    await using wrapped = await startWrapping(workload.port, { ca, texts });
    const leads = (objects: readonly KubeObject[]) =>
      JSON.stringify(objects).includes('linkerd.io/inject') ? wrapped : workload;
    await start(trap('MC1406'));
    assert.equal(await ask(leads(trap('MC1406'))), 'refused');
    assert.ok(wrapped.connections > 0);
    await start(fixed());
    assert.equal(await ask(leads(fixed())), ISTIO);
  });

  trapTest('MC2001', 'a permissive sidecar closes TLS without an istio protocol, a strict one takes it', async () => {
    await start(trap('MC2001'));
    assert.deepEqual([await ask(sidecar.permissive), await ask(sidecar.strict)], ['refused', ISTIO]);
    await start(fixed());
    assert.deepEqual([await ask(sidecar.permissive), await ask(sidecar.strict)], [ISTIO, ISTIO]);
  });

  trapTest('MC2004', 'where no sidecar is, the application gets the handshake', async () => {
    await start(trap('MC2004'));
    assert.equal(await ask(sidecar.application), 'refused');
    await start(fixed());
    assert.equal(await ask(sidecar.strict), ISTIO);
  });

  trapTest(
    'MC2005',
    'with the files of the sidecar the upstream is not verified, and the impostor is believed',
    async () => {
      const madeUp = objectsOf(texts, secret('istio-certs', 'emissary', PAIR))[0];
      await start(trap('MC2005'), { files: new Map(), madeUp });
      assert.deepEqual(await seen(), { workload: ISTIO, impostor: ISTIO });
      await start(fixed());
      assert.deepEqual(await seen(), RIGHT);
    },
  );

  trapTest('MC5004', 'what goes with the MeshCertificate leaves its Mappings to the impostor', async () => {
    const objects = trap('MC5004');
    await start(objects);
    assert.deepEqual(await seen(), RIGHT);
    const kept = ['Deployment', 'Mapping'];
    await change(objects.filter(({ kind }) => kept.includes(kind)));
    assert.deepEqual(await seen(), { workload: 'refused', impostor: 'anonymous' });
  });

  describe('Linkerd', () => {
    const WEB = 'web.shop.serviceaccount.identity.linkerd.cluster.local';
    const podAt = async (options: Partial<PodOptions> = {}) => {
      const server = ca.identity({ dns: [WEB], lifetimeMs: HOUR });
      const pod = new Pod(
        { name: 'web-0', namespace: 'shop', serviceAccount: 'web', policy: { identities: [LINKERD] }, ...options },
        { clock: systemClock, id: WEB, issue: () => ({ ...server, id: WEB }), bundle: () => [ca.certificate] },
      );
      await pod.start();
      return disposable(pod);
    };
    const pair = secret(
      'mesh-identity',
      'emissary',
      { 'tls.crt': 'linkerd.leaf', 'tls.key': 'key' },
      'kubernetes.io/tls',
    );
    const right = context(`${BOTH}, sni: ${WEB}, min_tls_version: v1.3, max_tls_version: v1.3`);

    const WRONG: readonly (readonly [code: string, harm: string, pod?: Partial<PodOptions>, yaml?: string])[] = [
      ['MC3001', 'the bytes pass through to the application'],
      ['MC3002', 'no version is left'],
      ['MC3002', 'no version is left without a maximum', {}, context(`${BOTH}, sni: ${WEB}, min_tls_version: v1.3`)],
      ['MC3003', 'the proxy takes only proxies there', { port: 'proxy' }],
      ['MC3004', 'the bytes pass through to the application', { port: 'opaque' }],
      ['MC3005', 'the proxy knows no RSA'],
      ['MC3006', 'the bytes pass through to the application'],
    ];
    for (const [code, harm, options, more = ''] of WRONG) {
      trapTest(code, `${harm}, and no request arrives`, async () => {
        const wanted = ['MC3001', 'MC3002', 'MC3006'].includes(code) ? '' : right;
        const objects = objectsOf(texts, base, pair, wanted, example(code), more);
        assert.ok(codesOf(objects).includes(code));
        await using wrong = await podAt(options);
        await start(objects);
        assert.equal(await ask(wrong), 'refused');
        assert.equal(wrong.counts.requests, 0);
        await using pod = await podAt();
        await start(fixed(pair, right));
        assert.equal(await ask(pod), LINKERD);
      });
    }
  });
  it('docs/checks.md says which checks are tested here', () => checkJudged(place.name, judged));
}

/** The effect of a gateway's sidecar on its connections: the mesh's TLS around whatever the gateway sends. */
async function startWrapping(port: number, { ca, texts }: Pick<ReturnType<typeof material>, 'ca' | 'texts'>) {
  let connections = 0;
  const sockets = new Set<Socket>();
  const server = createServer((inner) => {
    connections += 1;
    const outer = tlsConnect({
      ...{ port, host: '127.0.0.1', cert: texts.leaf, key: texts.key, ca: ca.certificate.pem },
      checkServerIdentity: () => undefined,
    });
    for (const [one, another] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      sockets.add(one);
      one.on('error', () => another.destroy()).on('close', () => another.destroy());
    }
    inner.pipe(outer).pipe(inner);
  });
  return {
    port: await listen(server),
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const disposable = <T extends { stop(): Promise<void> }>(server: T): T & AsyncDisposable =>
  Object.assign(server, { [Symbol.asyncDispose]: () => server.stop() });
