import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { after, before, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { validator } from '../../src/config/validate.ts';
import { diagnose } from '../../src/doctor/doctor.ts';
import { gateways } from '../../src/gateways.ts';
import { fields, type KubeObject, keyOf, listOfFields, refOf } from '../../src/objects/objects.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { eventually } from '../peers/parts/eventually.ts';
import { type Seen, startUpstream, type Upstream } from '../peers/parts/gateway-lab.ts';
import { exampleOf, material, objectsOf, readExamples } from './examples.ts';
import { checkJudged, type Place } from './judged.ts';

/** A cluster with a gateway that serves Gateway API as Envoy Gateway does. */
export interface TrapLab extends AsyncDisposable {
  /** Creates or updates. A Service leads to the upstream. */
  apply(object: KubeObject, upstream: Upstream): Promise<void>;
  remove(object: KubeObject): Promise<void>;
  read(object: KubeObject): Promise<KubeObject>;
  ensureNamespace(name: string): Promise<void>;
  /** A request through a Gateway; what the upstream saw of it, if it answered. */
  ask(gateway: KubeObject, path: string): Promise<{ readonly status: number; readonly seen: Seen | undefined }>;
  log(): string;
}

export interface GatewayTrapPlace {
  readonly name: Place;
  start(): Promise<TrapLab>;
  /**
   * Runs `act` beside a control plane that watches Gateway API; `rules` are the TLS modes that it gives to sidecars for
   * the Services of a namespace.
   */
  hijack?(
    lab: TrapLab,
    act: (rules: (namespace: string) => Promise<readonly string[]>) => Promise<void>,
  ): Promise<void>;
}

const { ca, texts } = material();
const { gatewayApi } = readExamples();
const HOUR = 3_600_000;
const parse = validator(adapters, gateways);
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const UPDATED = ['Service', 'Secret', 'ConfigMap'];

const codesOf = (objects: readonly KubeObject[]): string[] =>
  diagnose({
    ...{ adapters, objects, now: Date.now(), whole: new Set() },
    parse(object) {
      const result = parse(object);
      return result.ok ? result.value : undefined;
    },
  }).map(({ code }) => code);

/** What a request must show. */
type Outcome = 'mtls' | 'plaintext' | 500 | 503;

const rotated = () => {
  const { chain, key } = ca.identity({ uris: ['spiffe://cluster.local/ns/emissary/sa/emissary'], lifetimeMs: HOUR });
  const pem = formatCertificates(chain);
  const encoded = (text: string) => Buffer.from(text).toString('base64');
  return { pem, data: { 'tls.crt': encoded(pem), 'tls.key': encoded(key.toPem()) } };
};

/** The objects of one test, in namespaces of its own. */
class Scene {
  readonly #lab: TrapLab;
  readonly #suffix: string;
  readonly #upstream: Upstream;
  #objects: readonly KubeObject[] = [];

  constructor(lab: TrapLab, upstream: Upstream, code: string) {
    this.#lab = lab;
    this.#upstream = upstream;
    this.#suffix = code.toLowerCase();
  }

  /** With the namespaces of this scene in place of those on the page. */
  objects = (...yaml: readonly string[]): KubeObject[] => this.only(gatewayApi, ...yaml);

  only(...yaml: readonly string[]): KubeObject[] {
    const text = JSON.stringify(objectsOf(texts, ...yaml));
    const own = text.replace(
      /"namespace":"(emissary|shop|certs)"/g,
      (_, name) => `"namespace":"${name}-${this.#suffix}"`,
    );
    return JSON.parse(own);
  }

  /** Makes exactly these objects exist: first what others refer to; routes last. */
  async become(objects: readonly KubeObject[]): Promise<void> {
    const before = new Map(this.#objects.map((object) => [keyOf(refOf(object)), object]));
    for (const { metadata } of objects) if (metadata.namespace) await this.#lab.ensureNamespace(metadata.namespace);
    const rank = ({ kind }: KubeObject) => (UPDATED.includes(kind) ? 0 : kind.endsWith('Route') ? 2 : 1);
    for (const object of objects.toSorted((a, b) => rank(a) - rank(b))) {
      const known = before.get(keyOf(refOf(object)));
      before.delete(keyOf(refOf(object)));
      if (JSON.stringify(known) !== JSON.stringify(object)) await this.#lab.apply(object, this.#upstream);
    }
    for (const object of before.values()) await this.#lab.remove(object);
    this.#objects = objects;
  }

  find(kind: string, name: string): KubeObject {
    const found = this.#objects.find((object) => object.kind === kind && object.metadata.name === name);
    assert.ok(found, `${kind} ${name}`);
    return found;
  }

  ask(path = '/web', gateway = 'edge') {
    return this.#lab.ask(this.find('Gateway', gateway), path);
  }

  /** Waits until requests show it. */
  async shows(outcome: Outcome, path = '/web', gateway = 'edge'): Promise<void> {
    let last: unknown;
    const holds = async () => {
      const { status, seen } = await this.ask(path, gateway);
      last = { status, seen };
      if (typeof outcome === 'number') return status === outcome;
      return seen !== undefined && seen.tls === (outcome === 'mtls') && (seen.serial !== null) === (outcome === 'mtls');
    };
    await eventually(`${outcome} of ${path}`, holds, () => `${JSON.stringify(last)}\n${this.#lab.log()}`);
  }

  /** Conditions of a policy that are not True, such as `Accepted Conflicted`; undefined: it has no status. */
  async refusals(name: string): Promise<readonly string[] | undefined> {
    const { status } = await this.#lab.read(this.find('BackendTLSPolicy', name));
    const ancestors = listOfFields(fields(status).ancestors);
    if (ancestors.length === 0) return undefined;
    return ancestors
      .flatMap(({ conditions }) => listOfFields(conditions))
      .flatMap(({ type, status: state, reason }) => (state === 'True' ? [] : [`${type} ${reason}`]));
  }

  async refused(name: string, wanted: readonly string[] | undefined): Promise<void> {
    const holds = async () => JSON.stringify(await this.refusals(name)) === JSON.stringify(wanted);
    await eventually(`${wanted} of ${name}`, holds, this.#lab.log);
  }

  read = (kind: string, name: string): Promise<KubeObject> => this.#lab.read(this.find(kind, name));

  async end(): Promise<void> {
    for (const object of this.#objects.toReversed()) await this.#lab.remove(object);
  }
}

/**
 * Defines a test for each trap of Gateway API whose harm is visible on the wire or in a status: doctor finds it in the
 * objects, the harm occurs, and after the fix that docs/checks.md gives, both are gone.
 */
export function judgeGatewayTraps(place: GatewayTrapPlace): void {
  const judged = new Set<string>();
  let lab: TrapLab;
  let workload: Upstream;
  before(async () => {
    lab = await place.start();
    const { chain, key } = ca.identity({ uris: [WEB], lifetimeMs: HOUR });
    const pem = formatCertificates(chain);
    workload = await startUpstream({
      leaf: { certificate: pem, chain: pem, key: key.toPem() },
      roots: ca.certificate.pem,
    });
  });
  after(async () => {
    await lab?.[Symbol.asyncDispose]();
    await workload?.[Symbol.asyncDispose]();
  });

  interface TrapOptions {
    /** The objects of the fix beside those that every example starts from; default none. */
    readonly fix?: string;
    /** Without the objects before the trap, since what is in use stays in use. */
    readonly fresh?: boolean;
    /** What holds after the fix, beside requests to the Service. */
    readonly afterwards?: (scene: Scene) => Promise<void>;
  }
  const trapTest = (
    code: string,
    harm: string,
    act: (scene: Scene, objects: readonly KubeObject[]) => Promise<void>,
    { fix = '', fresh = false, afterwards }: TrapOptions = {},
  ) => {
    judged.add(code);
    it(`${code}: ${harm}`, async () => {
      const scene = new Scene(lab, workload, code);
      const objects = scene.objects(exampleOf(code));
      assert.ok(codesOf(objects).includes(code), `doctor finds ${code} before anything is applied`);
      if (!fresh) {
        await scene.become(scene.objects());
        await scene.shows('mtls');
      }
      await scene.become(objects);
      await act(scene, objects);
      const fixed = scene.objects(fix);
      assert.deepEqual(codesOf(fixed), ['MC1307'], 'after the fix doctor finds nothing more');
      await scene.become(fixed);
      await scene.shows('mtls');
      await afterwards?.(scene);
      await scene.end();
    });
  };
  const offers = (scene: Scene, protocol: string) =>
    eventually(`the protocol ${protocol}`, async () => (await scene.ask()).seen?.alpn === protocol, lab.log);

  trapTest('MC1501', 'requests go out in plaintext, and the status of before stays', async (scene) => {
    await scene.shows('plaintext');
    await scene.refused('web', []);
  });
  trapTest('MC1502', 'the older one counts, and the other one is Conflicted', async (scene) => {
    await scene.refused('web-too', ['Accepted Conflicted']);
    await scene.shows('mtls');
  });
  trapTest('MC1503', 'the policy for the whole Service has no effect and no status', async (scene) => {
    await scene.refused('web', []);
    await scene.refused('all-of-web', undefined);
    await scene.shows('mtls');
  });
  trapTest('MC1504', 'no certificate of the mesh has the DNS name', (scene) => scene.shows(503));
  trapTest('MC1506', 'doctor finds it in the status that the controller writes', async (scene) => {
    await scene.shows(500);
    await scene.refused('web', ['Accepted NoValidCACertificate', 'ResolvedRefs InvalidCACertificateRef']);
    const real = await scene.read('BackendTLSPolicy', 'web');
    const others = scene.objects().filter(({ kind }) => kind !== 'BackendTLSPolicy');
    assert.ok(codesOf([...others, real]).includes('MC1506'));
  });
  trapTest('MC1601', 'the application protocols of the EnvoyProxy are not offered', (scene) =>
    offers(scene, 'http/1.1'),
  );
  trapTest('MC1602', 'a rotated certificate is not presented', async (scene, objects) => {
    await offers(scene, 'http/1.1');
    const serial = async () => (await scene.ask()).seen?.serial;
    const first = await serial();
    const { pem, data } = rotated();
    const next = objects.map((object) => (object.metadata.name === 'mesh-identity' ? { ...object, data } : object));
    await scene.become(next);
    for (let request = 0; request < 100; request++) assert.equal(await serial(), first);
    const proxy = scene.objects().filter(({ kind }) => kind === 'EnvoyProxy');
    await scene.become([...next.filter(({ kind }) => kind !== 'EnvoyProxy'), ...proxy]);
    const wanted = new X509Certificate(pem).serialNumber;
    await eventually('the rotated one', async () => (await serial()) === wanted, lab.log);
  });
  trapTest('MC1603', 'nothing is sent', (scene) => scene.shows(500));
  trapTest('MC1604', 'the proxy gets no certificate to present', (scene) => scene.shows(503));
  trapTest(
    'MC1605',
    'a proxy that starts answers 503, and every status is Accepted',
    async (scene) => {
      await scene.shows(503);
      await scene.refused('web', []);
    },
    { fresh: true },
  );
  trapTest('MC1606', 'no certificate is presented, until a ReferenceGrant is there', async (scene, objects) => {
    await scene.shows(503);
    const granted = [...objects, ...scene.only(grant('Gateway', 'Secret', 'certs'))];
    assert.ok(!codesOf(granted).includes('MC1606'));
    await scene.become(granted);
    await scene.shows('mtls');
  });
  trapTest('MC1607', 'the server refuses the certificate', (scene) => scene.shows(503));
  trapTest('MC1609', 'the server refuses the Gateway that presents none', (scene) => scene.shows(503, '/web', 'bare'));
  trapTest('MC1610', 'none of the protocols of the mesh is offered', (scene) => offers(scene, 'http/1.1'), {
    afterwards: (scene) => offers(scene, 'istio-http/1.1'),
  });
  trapTest('MC1701', 'the upstream is refused', (scene) => scene.shows(503));
  trapTest(
    'MC1702',
    'a proxy that starts has no roots, and every status is Accepted',
    async (scene) => {
      await scene.shows(503);
      await scene.refused('web', []);
    },
    { fresh: true },
  );
  trapTest('MC1703', 'nothing is sent', (scene) => scene.shows(500));
  trapTest('MC1801', 'nothing is sent, until a ReferenceGrant is there', (scene) => scene.shows(500, '/far'), {
    fix: `${exampleOf('MC1801')}---\n${grant('HTTPRoute', 'Service', 'shop')}`,
    afterwards: (scene) => scene.shows('mtls', '/far'),
  });
  trapTest('MC1802', 'requests go out in plaintext', (scene) => scene.shows('plaintext', '/plain'));

  if (place.hijack) {
    judged.add('MC1505');
    it('MC1505: sidecars of the mesh get a rule to connect without their certificate', async () => {
      const scene = new Scene(lab, workload, 'MC1505');
      const objects = scene.objects(exampleOf('MC1505'));
      assert.ok(codesOf(objects).includes('MC1505'));
      await place.hijack?.(lab, async (rules) => {
        await scene.become(objects.filter(({ kind, metadata }) => kind !== 'GatewayClass' || metadata.name === 'eg'));
        const simple = async () => (await rules('shop-mc1505')).join() === 'SIMPLE';
        await eventually('the rule', simple, lab.log);
        const backend = scene.objects(BACKEND_TARGET);
        assert.ok(!codesOf([...backend, ...scene.only(exampleOf('MC1505'))]).includes('MC1505'));
        await scene.become(backend);
        await scene.shows('mtls');
        await eventually('no rule', async () => (await rules('shop-mc1505')).length === 0, lab.log);
      });
      await scene.end();
    });
  }

  it('has a test for each check that the table of docs/checks.md says so of', () =>
    checkJudged(place.name, judged, true));
}

const grant = (from: string, to: string, namespace: string): string => `apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: edge, namespace: ${namespace}}
spec:
  from: [{group: gateway.networking.k8s.io, kind: ${from}, namespace: emissary}]
  to: [{group: '', kind: ${to}}]
`;

/** Policy and route for a Backend in place of the Service. */
const BACKEND_TARGET = `apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: web, namespace: shop}
spec: {endpoints: [{ip: {address: 127.0.0.1, port: 8443}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: web}]
  validation:
    caCertificateRefs: [{group: '', kind: ConfigMap, name: mesh-ca}]
    hostname: web.shop.svc.cluster.local
    subjectAltNames: [{type: URI, uri: '${WEB}'}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge, namespace: emissary}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /web}}]
      backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: web}]
`;
