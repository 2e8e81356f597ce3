import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Linkerd, startLinkerd } from '../../sandbox/linkerd/linkerd.ts';
import { sandboxToken } from '../../sandbox/linkerd/token-review.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { sharing } from '../../src/async/sharing.ts';
import { grpcStatus } from '../../src/grpc/error.ts';
import { isIssuer } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import { install, linkerdHost, mintFor, setRoots } from '../../test/contract/adapter-linkerd-host.ts';
import { brief, examined } from '../../test/support/examined.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { RecordingHost } from '../../test/support/recording-host.ts';
import { linkerd as adapter } from './adapter.ts';
import type { LinkerdIssuer } from './issuer.ts';

const MINUTE = 60_000;
const signal = new AbortController().signal;

function open(mesh: Linkerd, host: RecordingHost, config: object = {}): LinkerdIssuer {
  const opened = adapter.open(
    adapter.config.parse({
      serviceAccount: { name: 'emissary' },
      address: mesh.address,
      controlPlaneNamespace: mesh.namespace,
      ...config,
    }),
    host,
  );
  assert.ok(isIssuer(opened));
  return opened as LinkerdIssuer;
}

async function failure(promise: Promise<unknown>): Promise<MeshError> {
  const error = await promise.then(
    () => assert.fail('it should have failed'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof MeshError, String(error));
  return error;
}

describe('an identity from Linkerd', () => {
  let mesh: Linkerd;
  let host: RecordingHost;
  before(async () => {
    mesh = await startLinkerd({ trustDomain: 'mesh.example', clusterDomain: 'cluster.local' });
    host = linkerdHost();
    install(host, mesh);
  });
  after(() => mesh.stop());

  it('names the gateway by its account and the trust domain, which is not the cluster domain', async () => {
    const identity = await open(mesh, host).issue(signal);
    assert.equal(identity.id, 'emissary.emissary.serviceaccount.identity.linkerd.mesh.example');
    assert.deepEqual(leafOf(identity).names.dns, [identity.id]);
    assert.equal(leafOf(identity).subject, '');
    assert.equal(leafOf(identity).publicKeyFingerprint, identity.key.publicKeyFingerprint);
    assert.deepEqual(host.tokenRequests.at(-1), {
      audience: 'identity.l5d.io',
      destinations: [{ address: mesh.address, secure: true }],
      serviceAccount: { name: 'emissary', namespace: 'emissary' },
    });
  });

  it('leads from the leaf through the issuer to a root of the ConfigMap', async () => {
    const { chain, roots } = await open(mesh, host).issue(signal);
    assert.equal(chain.length, 2);
    const [leaf, ...above] = chain;
    assert.ok(leaf);
    assert.equal(findPath(leaf, above, roots, Date.now()).ok, true);
  });

  it('leaves out a root that the operator put into the issuer’s file', async () => {
    mesh.setRootInIssuerFile(true);
    const { chain } = await open(mesh, host).issue(signal);
    mesh.setRootInIssuerFile(false);
    assert.deepEqual(
      chain.map(({ selfSigned }) => selfSigned),
      [false, false],
    );
  });

  it('has a new key and a different leaf each time, although serial numbers repeat after an issuer is loaded', async () => {
    const issuer = open(mesh, host);
    mesh.rotateIssuer();
    const identities: Identity[] = [];
    for (let round = 0; round < 2; round++) {
      mesh.rotateIssuer();
      identities.push(await issuer.issue(signal));
    }
    const [first, second] = identities;
    assert.ok(first && second);
    assert.equal(leafOf(first).serial, leafOf(second).serial);
    assert.notEqual(leafOf(first).fingerprint, leafOf(second).fingerprint);
    assert.notEqual(first.key.publicKeyFingerprint, second.key.publicKeyFingerprint);
  });

  it('uses one connection for all requests that are due at the same time', async () => {
    const before = mesh.connections;
    const shared = Object.assign(linkerdHost(), { share: sharing() });
    install(shared, mesh);
    const identities = await Promise.all(Array.from({ length: 50 }, () => open(mesh, shared).issue(signal)));
    assert.equal(new Set(identities.map((identity) => leafOf(identity).fingerprint)).size, 50);
    assert.equal(mesh.connections - before, 1);
  });

  it('can be that of the agent itself, read from its projected token', async () => {
    const issuer = open(mesh, host, { serviceAccount: undefined, tokenFile: '/var/run/secrets/tokens/linkerd' });
    const identity = await issuer.issue(signal);
    assert.equal(identity.id, 'meshcert.emissary.serviceaccount.identity.linkerd.mesh.example');
    assert.deepEqual(host.tokenRequests.at(-1), {
      audience: 'identity.l5d.io',
      destinations: [{ address: mesh.address, secure: true }],
      file: '/var/run/secrets/tokens/linkerd',
    });
  });

  it('is never requested in plaintext', async () => {
    const before = mesh.issued.length;
    assert.equal(
      (await failure(open(mesh, host, { address: mesh.plaintextAddress }).issue(signal))).code,
      'ERR_MESH_TLS',
    );
    assert.equal(mesh.issued.length, before);
    assert.throws(() => adapter.config.parse({ serviceAccount: { name: 'emissary' }, plaintext: true }), /plaintext/);
  });
});

describe('Linkerd, misconfigured or faulty', () => {
  let mesh: Linkerd;
  let host: RecordingHost;
  const fresh = async (options: Parameters<typeof startLinkerd>[0] = {}) => {
    await mesh?.stop();
    mesh = await startLinkerd(options);
    host = linkerdHost();
    install(host, mesh);
  };
  after(() => mesh?.stop());

  it('without linkerd-config says what to set, and works once it is set', async () => {
    await fresh({ trustDomain: 'mesh.example' });
    host.setConfigMap({ name: 'linkerd-config', namespace: 'linkerd' }, undefined);
    const error = await failure(open(mesh, host, { address: undefined }).issue(signal));
    assert.equal(error.code, 'ERR_MESH_CONFIG');
    assert.match(error.message, /ConfigMap linkerd\/linkerd-config does not exist.*set trustDomain/);
    const identity = await open(mesh, host, { trustDomain: 'mesh.example' }).issue(signal);
    assert.match(identity.id, /\.mesh\.example$/);
  });

  it('with values that are not YAML names the ConfigMap and a workaround', async () => {
    await fresh();
    host.setConfigMap({ name: 'linkerd-config', namespace: 'linkerd' }, { values: 'a: [' });
    const error = await failure(open(mesh, host).issue(signal));
    assert.equal(error.code, 'ERR_MESH_CONFIG');
    assert.match(error.message, /linkerd\/linkerd-config is not YAML/);
  });

  it('with an external CA works from the ConfigMap that trust-manager writes, once it is there', async () => {
    await fresh();
    const ref = { name: 'mesh-roots', namespace: 'linkerd' };
    const issuer = open(mesh, host, { trustRoots: { configMap: 'mesh-roots', key: 'bundle.pem' } });
    const error = await failure(issuer.issue(signal));
    assert.equal(error.code, 'ERR_MESH_CONFIG');
    assert.match(error.message, /ConfigMap linkerd\/mesh-roots .* does not exist; .*trust-manager/);
    host.setConfigMap(ref, { 'ca.crt': 'x' });
    assert.match((await failure(issuer.issue(signal))).message, /no trust root under bundle\.pem but ca\.crt/);
    host.setConfigMap(ref, { 'bundle.pem': formatCertificates(mesh.bundle()) });
    assert.equal((await issuer.issue(signal)).roots.length, 1);
  });

  it('with several roots, a key and junk in the bundle yields each root once', async () => {
    await fresh();
    const other = SandboxCa.root().certificate;
    const [root] = mesh.bundle();
    assert.ok(root);
    const key = (await open(mesh, host).issue(signal)).key.toPem();
    setRoots(host, mesh, `# staging\n${other.pem}\njunk ${key}\n${root.pem}${root.pem}trailing`);
    const identity = await open(mesh, host).issue(signal);
    assert.deepEqual(
      identity.roots.map(({ fingerprint }) => fingerprint),
      [other.fingerprint, root.fingerprint],
    );
  });

  it('with a broken root in the bundle names the ConfigMap', async () => {
    await fresh();
    setRoots(host, mesh, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n');
    const error = await failure(open(mesh, host).issue(signal));
    assert.equal(error.code, 'ERR_MESH_CONFIG');
    assert.match(error.message, /ca-bundle\.crt of ConfigMap linkerd\/linkerd-identity-trust-roots/);
  });

  it('refuses an account with a dot in its name before any request', async () => {
    await fresh();
    assert.throws(
      () => open(mesh, host, { serviceAccount: { name: 'edge.stack' } }),
      /ServiceAccount with a dot in its name/,
    );
    host.mint = mintFor({ name: 'edge.stack', namespace: 'emissary' });
    const issuer = open(mesh, host, { serviceAccount: undefined, tokenFile: '/token' });
    const error = await failure(issuer.issue(signal));
    assert.equal(error.code, 'ERR_MESH_CONFIG');
    assert.equal(error.retry, 'never');
    assert.match(error.message, /ServiceAccount emissary\/edge\.stack.*without dots/);
    assert.deepEqual(mesh.issued, []);
  });

  it('refuses the token of another account, which the operator must fix', async () => {
    await fresh();
    host.mint = mintFor({ name: 'other', namespace: 'shop' });
    const error = await failure(open(mesh, host).issue(signal));
    assert.equal(error.code, 'ERR_MESH_CONFIG');
    assert.deepEqual(error.retry, { afterMs: MINUTE });
    assert.match(error.message, /FAILED_PRECONDITION; the token belongs to another account/);
  });

  it('refuses an expired token, and a new one is used at the next attempt', async () => {
    await fresh();
    const give = host.mint;
    host.mint = () => sandboxToken({ name: 'emissary', namespace: 'emissary' }, { expiresAt: Date.now() - MINUTE });
    const issuer = open(mesh, host);
    const error = await failure(issuer.issue(signal));
    assert.equal(error.code, 'ERR_MESH_TOKEN');
    assert.equal(error.retry, 'soon');
    host.mint = give;
    assert.ok(await issuer.issue(signal));
  });

  it('accepts a token of the API server’s own audience, as Linkerd does', async () => {
    await fresh();
    host.mint = () =>
      sandboxToken({ name: 'emissary', namespace: 'emissary' }, { audience: 'https://kubernetes.default.svc' });
    assert.ok(await open(mesh, host).issue(signal));
  });

  it('says that a file holds no token of a ServiceAccount', async () => {
    await fresh();
    host.mint = () => 'not-a-jwt';
    const error = await failure(open(mesh, host, { serviceAccount: undefined, tokenFile: '/token' }).issue(signal));
    assert.equal(error.code, 'ERR_MESH_TOKEN');
    assert.match(error.message, /token file \/token holds no token of a Kubernetes ServiceAccount/);
  });

  it('whose issuer has expired says so: the service answers UNKNOWN', async () => {
    await fresh();
    mesh.rotateIssuer({ lifetimeMs: -1000 });
    const error = await failure(open(mesh, host).issue(signal));
    assert.equal(error.code, 'ERR_MESH_UNAVAILABLE');
    assert.equal(error.retry, 'soon');
    assert.match(error.message, /UNKNOWN; its issuer certificate has expired.*renew the issuer/);
    mesh.rotateIssuer();
    assert.ok(await open(mesh, host).issue(signal));
  });

  it('with an issuer that ends in minutes gives a leaf that ends with it', async () => {
    await fresh();
    mesh.rotateIssuer({ lifetimeMs: 3 * MINUTE });
    const leaf = leafOf(await open(mesh, host).issue(signal));
    assert.ok(leaf.notAfter - Date.now() <= 3 * MINUTE);
    assert.ok(leaf.notAfter > Date.now());
  });

  it('with a wrongly guessed trust domain fails at the name, not at the token', async () => {
    await fresh({ trustDomain: 'mesh.example' });
    const error = await failure(open(mesh, host, { trustDomain: 'cluster.local' }).issue(signal));
    assert.equal(error.code, 'ERR_MESH_TLS');
    assert.match(error.message, /linkerd-identity\.linkerd\.serviceaccount\.identity\.linkerd\.cluster\.local/);
    assert.deepEqual(mesh.issued, []);
  });

  it('whose roots are not those of the ConfigMap never receives the token', async () => {
    await fresh();
    setRoots(host, mesh, SandboxCa.root().certificate.pem);
    assert.equal((await failure(open(mesh, host).issue(signal))).code, 'ERR_MESH_TLS');
    assert.deepEqual(mesh.issued, []);
  });

  it('has a code each for being unreachable, breaking off and refusing', async () => {
    await fresh();
    const unreachable = await failure(open(mesh, host, { address: '127.0.0.1:1' }).issue(signal));
    assert.equal(unreachable.code, 'ERR_MESH_UNREACHABLE');
    mesh.outage(true);
    assert.equal((await failure(open(mesh, host).issue(signal))).code, 'ERR_MESH_UNREACHABLE');
    mesh.outage(false);
    const codes: [number, string][] = [
      [grpcStatus.UNAVAILABLE, 'ERR_MESH_UNAVAILABLE'],
      [grpcStatus.INTERNAL, 'ERR_MESH_UNAVAILABLE'],
      [grpcStatus.PERMISSION_DENIED, 'ERR_MESH_DENIED'],
      [grpcStatus.RESOURCE_EXHAUSTED, 'ERR_MESH_RATE_LIMITED'],
      [grpcStatus.UNIMPLEMENTED, 'ERR_MESH_CONFIG'],
      [grpcStatus.DATA_LOSS, 'ERR_MESH_BAD_RESPONSE'],
    ];
    for (const [status, code] of codes) {
      mesh.fail(status);
      assert.equal((await failure(open(mesh, host).issue(signal))).code, code, grpcStatus[status]);
    }
    mesh.fail(undefined);
    assert.ok(await open(mesh, host).issue(signal));
    mesh.unloadIssuer();
    assert.equal((await failure(open(mesh, host).issue(signal))).code, 'ERR_MESH_UNAVAILABLE');
  });

  it('never shows a token or a key in an error', async () => {
    await fresh();
    host.mint = mintFor({ name: 'other', namespace: 'shop' });
    const error = await failure(open(mesh, host).issue(signal));
    const [secret] = host.tokensGiven;
    assert.ok(secret);
    assert.ok(!JSON.stringify([error.message, error.stack, String(error.cause)]).includes(secret));
  });
});

describe('a clock that is off', () => {
  async function atSkew(skewMs: number, body: (clock: FakeClock, host: RecordingHost, mesh: Linkerd) => Promise<void>) {
    const mesh = await startLinkerd();
    const clock = new FakeClock(Date.now() + skewMs);
    const host = linkerdHost(clock);
    install(host, mesh);
    try {
      await body(clock, host, mesh);
    } finally {
      await mesh.stop();
    }
  }

  it('30 s behind waits until the leaf is valid and says why', () =>
    atSkew(-30_000, async (clock, host, mesh) => {
      const issued = open(mesh, host).issue(signal);
      await clock.untilSleeping();
      assert.match(host.reports[0]?.message ?? '', /this machine's clock is at least that far behind/);
      await clock.advance(clock.nextIn ?? 0);
      assert.ok(leafOf(await issued).notBefore <= clock.now());
    }));

  it('30 s ahead makes no difference', () =>
    atSkew(30_000, async (_clock, host, mesh) => {
      assert.ok(await open(mesh, host).issue(signal));
      assert.deepEqual(host.reports, []);
    }));

  it('hours behind is an error that names the clock', () =>
    atSkew(-3 * 60 * MINUTE, async (_clock, host, mesh) => {
      const error = await failure(open(mesh, host).issue(signal));
      assert.equal(error.code, 'ERR_MESH_BAD_RESPONSE');
      assert.match(error.message, /clock is at least that far behind the control plane's; set it/);
    }));

  it('days ahead is an error that names both times', () =>
    atSkew(3 * 24 * 60 * MINUTE, async (_clock, host, mesh) => {
      const error = await failure(open(mesh, host).issue(signal));
      assert.match(error.message, /correct the clock/);
    }));
});

describe("Linkerd's roots", () => {
  it('are yielded now and at each change, and a leaf is stale only when none of them issued it', async () => {
    const mesh = await startLinkerd();
    const host = linkerdHost();
    install(host, mesh);
    const issuer = open(mesh, host);
    const stop = new AbortController();
    const roots = issuer.roots(stop.signal)[Symbol.asyncIterator]();
    try {
      assert.equal((await roots.next()).value?.length, 1);
      const identity = await issuer.issue(signal);
      await mesh.addRoot();
      install(host, mesh);
      const both = (await roots.next()).value ?? [];
      assert.equal(both.length, 2);
      assert.equal(issuer.stale({ ...identity, roots: both }), undefined);
      assert.equal((await issuer.issue(signal)).roots.length, 2, 'the channel follows the bundle');

      mesh.restartControlPlane();
      mesh.rotateIssuer();
      await mesh.dropOldRoots();
      install(host, mesh);
      const last = (await roots.next()).value ?? [];
      assert.match(issuer.stale({ ...identity, roots: last }) ?? '', /no longer under/);
      const next = await issuer.issue(signal);
      assert.equal(issuer.stale(next), undefined);
    } finally {
      stop.abort();
      await mesh.stop();
    }
  });

  it('that are missing or invalid are reported, and the last valid ones stay in use', async () => {
    const mesh = await startLinkerd();
    const host = linkerdHost();
    install(host, mesh);
    const issuer = open(mesh, host);
    const stop = new AbortController();
    const roots = issuer.roots(stop.signal)[Symbol.asyncIterator]();
    try {
      await roots.next();
      const next = roots.next();
      setRoots(host, mesh, 'no certificate');
      assert.equal((await issuer.issue(signal)).roots.length, 1);
      setRoots(host, mesh);
      await next;
      assert.deepEqual(
        host.reports.map((error) => (error as MeshError).code),
        ['ERR_MESH_CONFIG'],
      );
    } finally {
      stop.abort();
      await mesh.stop();
    }
  });
});

describe('the check of Linkerd', () => {
  it('reports no problem in a healthy mesh, also without requesting a certificate', async () => {
    const mesh = await startLinkerd({ rootLifetimeMs: 400 * 24 * 60 * MINUTE });
    const host = linkerdHost();
    install(host, mesh);
    try {
      const steps = ['linkerd-config', 'linkerd-roots', 'linkerd-token', 'linkerd-connection'];
      const passed = steps.map((code) => `${code} passed`);
      assert.deepEqual(brief(await examined(open(mesh, host), { issue: false })), [...passed, 'linkerd-issue skipped']);
      assert.deepEqual(mesh.issued, []);
      assert.deepEqual(brief(await examined(open(mesh, host))), [...passed, 'linkerd-issue passed']);
      assert.equal(mesh.issued.length, 1);
    } finally {
      await mesh.stop();
    }
  });

  it('reports each problem: roots near their end, an identity service that is down', async () => {
    const mesh = await startLinkerd({ rootLifetimeMs: 30 * 24 * 60 * MINUTE });
    const host = linkerdHost();
    install(host, mesh);
    try {
      mesh.outage(true);
      const checks = await examined(open(mesh, host));
      const wrong = checks.filter(({ state }) => state === 'failed').map(({ code }) => code);
      assert.deepEqual(wrong, ['linkerd-root-expiry', 'linkerd-connection']);
    } finally {
      await mesh.stop();
    }
  });
});
