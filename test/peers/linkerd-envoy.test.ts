import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { linkerd as adapter } from '../../adapters/linkerd/adapter.ts';
import { type Linkerd, startLinkerd } from '../../sandbox/linkerd/linkerd.ts';
import type { Pod, PodOptions } from '../../sandbox/linkerd/pod.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { secretFileName } from '../../src/gateway/emissary/reading.ts';
import { isIssuer } from '../../src/mesh/adapter.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { install, linkerdHost } from '../contract/adapter-linkerd-host.ts';
import { type Envoy, type EnvoyObject, startEnvoy } from './servers/envoy.ts';
import { httpListener, type MtlsCluster, mtlsCluster, plainCluster } from './servers/envoy-config.ts';
import { freePorts } from './servers/loopback.ts';

const signal = new AbortController().signal;
const CLUSTER = 'upstream';

/**
 * Real Envoy with one listener and one cluster, configured as Emissary does: files named by content, swapped by CDS.
 */
class GatewayEnvoy implements AsyncDisposable {
  readonly #envoy: Envoy;
  readonly #directory: string;
  readonly url: string;

  private constructor(envoy: Envoy, directory: string, url: string) {
    this.#envoy = envoy;
    this.#directory = directory;
    this.url = url;
  }

  static async start(): Promise<GatewayEnvoy> {
    const { http } = await freePorts('http');
    const directory = mkdtempSync(join(tmpdir(), 'linkerd-envoy-'));
    const listener = explained(httpListener(http, CLUSTER));
    const envoy = await startEnvoy({ listeners: [listener], clusters: [plainCluster(CLUSTER, 1)] });
    return new GatewayEnvoy(envoy, directory, `http://127.0.0.1:${http}/`);
  }

  /** The TLSContext that we publish for Linkerd, or one with a mistake in it. */
  async use(
    target: { readonly port: number; readonly sni?: string | undefined },
    identity: Pick<Identity, 'key' | 'chain'>,
    bundle: readonly Certificate[],
    mistake: Partial<MtlsCluster> & { readonly withoutMaximum?: boolean | undefined } = {},
  ): Promise<void> {
    const pair = { 'tls.crt': formatCertificates(identity.chain), 'tls.key': identity.key.toPem() };
    const roots = formatCertificates(bundle);
    const { minTlsVersion, maxTlsVersion } = adapter.tls;
    assert.deepEqual([minTlsVersion, maxTlsVersion], ['v1.3', 'v1.3']);
    await this.#envoy.swap([
      mtlsCluster({
        name: CLUSTER,
        port: target.port,
        ...(target.sni !== undefined && { sni: target.sni }),
        certFile: this.#file(`${secretFileName(pair)}.crt`, pair['tls.crt']),
        keyFile: this.#file(`${secretFileName(pair)}.key`, pair['tls.key']),
        caFile: this.#file(`${secretFileName({ 'tls.crt': roots })}.ca`, roots),
        minTls: 'TLSv1_3',
        ...(!mistake.withoutMaximum && { maxTls: 'TLSv1_3' as const }),
        ...mistake,
      }),
    ]);
  }

  async get(): Promise<{ readonly status: number; readonly body: string }> {
    const response = await fetch(this.url);
    return { status: response.status, body: await response.text() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#envoy.stop();
    rmSync(this.#directory, { recursive: true });
  }

  #file(name: string, text: string): string {
    const path = join(this.#directory, name);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }
}

/** Envoy's own answers contain what its access log would: the response flags and why the transport failed. */
function explained(listener: EnvoyObject): EnvoyObject {
  const copy = structuredClone(listener) as {
    filter_chains: { filters: { typed_config: Record<string, unknown> }[] }[];
  };
  const config = copy.filter_chains[0]?.filters[0]?.typed_config;
  assert.ok(config);
  config.local_reply_config = {
    body_format: {
      text_format_source: {
        inline_string: '%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%',
      },
    },
  };
  return copy;
}

describe('real Envoy straight to a meshed pod', () => {
  let mesh: Linkerd;
  let gateway: GatewayEnvoy;
  let host: ReturnType<typeof linkerdHost>;

  before(async () => {
    mesh = await startLinkerd();
    host = linkerdHost();
    install(host, mesh);
    gateway = await GatewayEnvoy.start();
  });
  after(async () => {
    await gateway?.[Symbol.asyncDispose]();
    await mesh?.stop();
  });

  async function issue(): Promise<Identity> {
    install(host, mesh);
    const opened = adapter.open(
      adapter.config.parse({ serviceAccount: { name: 'emissary' }, address: mesh.address }),
      host,
    );
    assert.ok(isIssuer(opened));
    return opened.issue(signal);
  }
  const pod = (options: Partial<PodOptions> = {}): Promise<Pod> =>
    mesh.startPod({ name: 'web-0', namespace: 'shop', serviceAccount: 'web', ...options });
  const at = (target: Pod) => ({ port: target.port, sni: target.id });

  it('speaks TLS 1.3 with the SNI of its target and is recognised by the identity of the gateway', async () => {
    const gatewayId = mesh.identityOf('emissary', 'emissary');
    const target = await pod({ policy: { identities: [gatewayId] } });
    const identity = await issue();
    await gateway.use(at(target), identity, identity.roots);
    const { status, body } = await gateway.get();
    assert.equal(status, 200, body);
    assert.deepEqual(JSON.parse(body), { pod: 'web-0', peer: gatewayId, path: '/' });
    assert.equal(target.proxy?.counts.terminated, 1);
    assert.equal(target.proxy?.counts.passed, 0);
  });

  it('loses no request through leaf, issuer and root rotation, in the order of the guide', async () => {
    const gatewayId = mesh.identityOf('emissary', 'emissary');
    const target = await pod({ policy: { identities: [gatewayId] } });
    const stop = new AbortController();
    const seen = new Map<number, number>();
    let served = 0;
    const use = async (identity: Identity, bundle = identity.roots) => {
      await gateway.use(at(target), identity, bundle);
      for (const until = served + 20; served < until && seen.size <= 1; ) await new Promise(setImmediate);
    };
    let identity = await issue();
    await gateway.use(at(target), identity, identity.roots);
    assert.equal((await gateway.get()).status, 200);
    const load = Array.from({ length: 4 }, async () => {
      while (!stop.signal.aborted) {
        const { status } = await gateway.get();
        seen.set(status, (seen.get(status) ?? 0) + 1);
        served++;
      }
    });
    const leaves = new Set<string>([leafOf(identity).fingerprint]);
    try {
      for (let round = 0; round < 3; round++) {
        identity = await issue();
        leaves.add(leafOf(identity).fingerprint);
        await use(identity);
      }
      for (let round = 0; round < 3; round++) {
        mesh.rotateIssuer();
        identity = await issue();
        leaves.add(leafOf(identity).fingerprint);
        await use(identity);
      }
      // A new root: first trusted everywhere, then used, then the old one is removed.
      await mesh.addRoot();
      identity = await issue();
      assert.equal(identity.roots.length, 2);
      await use(identity);
      const next = await pod({ name: 'web-1', policy: { identities: [gatewayId] } });
      assert.deepEqual(next.anchors, mesh.bundle());
      mesh.restartControlPlane();
      await gateway.use(at(next), identity, identity.roots);
      mesh.rotateIssuer();
      const old = identity.roots;
      identity = await issue();
      leaves.add(leafOf(identity).fingerprint);
      await gateway.use(at(next), identity, old);
      await mesh.dropOldRoots();
      identity = await issue();
      leaves.add(leafOf(identity).fingerprint);
      // The old root is retained while a pod may still present a leaf below it.
      await gateway.use(at(next), identity, old);
      for (const until = served + 50; served < until && seen.size <= 1; ) await new Promise(setImmediate);
    } finally {
      stop.abort();
      await Promise.all(load);
    }
    assert.deepEqual([...seen.keys()], [200]);
    assert.equal(leaves.size, 9);
    assert.ok(served > 200, `${served} requests`);
    const peers = [...target.counts.clients.keys()];
    assert.deepEqual(peers, [gatewayId]);
  });

  interface Wrong {
    readonly target: Pod;
    readonly sni?: string | undefined;
    readonly mistake?: Partial<MtlsCluster>;
    readonly withoutMaximum?: boolean;
    readonly identity?: Identity;
    readonly bundle?: readonly Certificate[];
  }

  describe('fails as docs/linkerd.md says', () => {
    const cases: [
      title: string,
      set: (identity: Identity) => Promise<Wrong>,
      status: number,
      body: RegExp,
      proxy?: (target: Pod) => void,
    ][] = [
      [
        'without SNI: the bytes pass through to the application, which answers no TLS',
        async () => ({ target: await pod(), sni: undefined }),
        503,
        /^UF .*TLS_error:.*WRONG_VERSION_NUMBER/,
        (target) => assert.ok((target.proxy?.counts.passed ?? 0) > 0),
      ],
      [
        'with the SNI of another target: the same',
        async () => ({ target: await pod(), sni: mesh.identityOf('api', 'shop') }),
        503,
        /^UF .*TLS_error:.*WRONG_VERSION_NUMBER/,
        (target) => assert.ok((target.proxy?.counts.passed ?? 0) > 0),
      ],
      [
        'with TLS 1.2, which is as high as Envoy goes unless max_tls_version is set',
        async () => ({ target: await pod(), mistake: { minTls: 'TLSv1_2', maxTls: 'TLSv1_2' } }),
        503,
        /^UF .*TLS_error:.*TLSV1_ALERT_PROTOCOL_VERSION/,
      ],
      [
        'with min_tls_version alone, since Envoy then has no version left',
        async () => ({ target: await pod(), withoutMaximum: true }),
        503,
        /^UF .*TLS_error:.*NO_SUPPORTED_VERSIONS_ENABLED/,
      ],
      [
        'on port 4143, where proxies take only each other',
        async () => ({ target: await pod({ port: 'proxy' }) }),
        503,
        /^UF .*TLS_error:.*NO_APPLICATION_PROTOCOL/,
      ],
      [
        'on an opaque or skipped port',
        async () => ({ target: await pod({ port: 'opaque' }) }),
        503,
        /^UF .*TLS_error:.*WRONG_VERSION_NUMBER/,
      ],
      [
        'to a pod without a proxy',
        async () => ({ target: await pod({ meshed: false }) }),
        503,
        /^UF .*TLS_error:.*WRONG_VERSION_NUMBER/,
      ],
      [
        'with a certificate that the pod does not trust, after a handshake that Envoy takes for done',
        async () => ({ target: await pod(), identity: foreign(), bundle: mesh.bundle() }),
        503,
        /^UC /,
        (target) => assert.match(target.proxy?.lastRefusal ?? '', /^client certificate: /),
      ],
      [
        'when the bundle lacks the root of the pod',
        async (identity) => ({ target: await pod(), identity, bundle: foreign().roots }),
        503,
        /^UF .*TLS_error:.*CERTIFICATE_VERIFY_FAILED/,
      ],
      [
        'when a policy does not name the gateway',
        async () => ({ target: await pod({ policy: { identities: [mesh.identityOf('other', 'emissary')] } }) }),
        403,
        /^$/,
      ],
    ];
    const foreign = (): Identity =>
      SandboxCa.root().identity({ dns: [mesh.identityOf('emissary', 'emissary')], lifetimeMs: 60_000 });

    for (const [title, set, status, body, proxy] of cases) {
      it(title, async () => {
        const current = await issue();
        const wrong = await set(current);
        const { target, mistake, withoutMaximum, identity = current, bundle = identity.roots } = wrong;
        const sni = 'sni' in wrong ? wrong.sni : target.id;
        await gateway.use({ port: target.port, sni }, identity, bundle, { ...mistake, withoutMaximum });
        const answer = await gateway.get();
        assert.equal(answer.status, status, answer.body);
        assert.match(answer.body, body);
        proxy?.(target);
        assert.equal(target.counts.requests, 0, 'nothing reached the application');
      });
    }

    it('when the issuer moves to a new root before the pods were restarted, and recovers after that', async () => {
      const target = await pod();
      await mesh.addRoot();
      mesh.restartControlPlane();
      mesh.rotateIssuer();
      const identity = await issue();
      await gateway.use(at(target), identity, identity.roots);
      const answer = await gateway.get();
      assert.equal(answer.status, 503);
      assert.match(answer.body, /^UC /);
      assert.match(target.proxy?.lastRefusal ?? '', /^client certificate: /);
      await mesh.restartPods();
      assert.equal((await gateway.get()).status, 200);
    });

    it('and a workload of the mesh that is not the target is accepted, since Emissary cannot check names', async () => {
      const impostor = await pod({ name: 'impostor' });
      const identity = await issue();
      await gateway.use(at(impostor), identity, identity.roots);
      assert.equal((await gateway.get()).status, 200);
    });
  });
});
