import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { inspect } from 'node:util';
import type { CaFault } from '../../sandbox/istio/ca-service.ts';
import { type Istio, type IstioOptions, startIstio } from '../../sandbox/istio/istio.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { sharing } from '../../src/async/sharing.ts';
import type { Checking, Issuer } from '../../src/mesh/adapter.ts';
import { MeshError, type MeshErrorCode } from '../../src/mesh/error.ts';
import { NotSeen } from '../../src/mesh/examiner.ts';
import { leafOf } from '../../src/mesh/identity.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { brief, examined } from '../../test/support/examined.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { istioToken, readIstioToken } from '../../test/support/istio-token.ts';
import { RecordingHost } from '../../test/support/recording-host.ts';
import { istio as adapter } from './adapter.ts';

const ROOTS = { namespace: 'emissary', name: 'istio-ca-root-cert' };
const BUNDLE = 'istio.io:istiod-ca:root-cert';
const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';
const HOUR = 3_600_000;
const live = new AbortController().signal;

describe("Istio's CA", { timeout: 30_000 }, () => {
  let clock: FakeClock;
  let host: RecordingHost;
  let mesh: Istio;
  const start = async (options: IstioOptions = {}) => {
    mesh = await startIstio({
      clock,
      authenticate: (token) => readIstioToken(token, clock.now()),
      publishRoots: (pem) => host.setConfigMap(ROOTS, { 'root-cert.pem': pem }),
      ...options,
    });
  };
  const open = (ca: object = {}, rest: object = {}) => {
    const { address, serverName } = mesh;
    const whole = { serviceAccount: 'emissary', address, serverName, ...ca };
    return adapter.open(adapter.config.parse({ ca: whole, ...rest }), host) as Issuer & Checking;
  };

  beforeEach(() => {
    clock = new FakeClock(Date.now());
    host = new RecordingHost(clock);
    host.mint = () => istioToken({ namespace: 'emissary', account: 'emissary' });
  });
  afterEach(() => mesh.stop());

  for (const layout of ['self-signed', 'plug-in', 'plug-in-with-root'] as const) {
    it(`separates chain and root of a ${layout} CA`, async () => {
      await start({ layout });
      const { chain, roots, id } = await open().issue(live);
      assert.equal(id, ID);
      assert.equal(chain.length, layout === 'self-signed' ? 1 : 2);
      assert.deepEqual(
        roots.map(({ fingerprint }) => fingerprint),
        mesh.roots().map(({ fingerprint }) => fingerprint),
      );
    });
  }

  it('uses every root of the last element', async () => {
    await start();
    await mesh.overlapRoot();
    assert.equal((await open().issue(live)).roots.length, 2);
  });

  it('requests a token of the ServiceAccount in its own namespace, again at each call', async () => {
    await start();
    const issuer = open();
    await issuer.issue(live);
    await issuer.issue(live);
    const request = {
      audience: 'istio-ca',
      destinations: [{ address: mesh.address, secure: true }],
      file: undefined,
      serviceAccount: { name: 'emissary', namespace: 'emissary' },
    };
    assert.deepEqual(host.tokenRequests, [request, request]);
  });

  it('gets its name from the token when that comes from a file', async () => {
    await start({ manner: 'istio-csr', trustDomain: 'example.org' });
    host.mint = () => istioToken({ namespace: 'other', account: 'agent' });
    const issuer = open(
      { serviceAccount: undefined, tokenFile: '/var/run/secrets/tokens/istio-token', audience: 'istio-ca' },
      { trustDomain: 'example.org' },
    );
    assert.equal((await issuer.issue(live)).id, 'spiffe://example.org/ns/other/sa/agent');
    assert.equal(host.tokenRequests[0]?.file, '/var/run/secrets/tokens/istio-token');
  });

  it('asks for the configured lifetime', async () => {
    await start();
    const leaf = leafOf(await open({ ttl: '2h' }).issue(live));
    assert.equal(Math.round((leaf.notAfter - clock.now()) / HOUR), 2);
    assert.deepEqual(host.lines, []);
  });

  it('reports when it was granted a shorter lifetime than requested', async () => {
    await start({ manner: 'istio-csr' });
    await open({ ttl: '8h' }).issue(live);
    assert.match(host.lines.join(), /granted 1h instead of the requested 8h/);
  });

  it('follows the root of the CA from its ConfigMap without being reopened', async () => {
    await start();
    const issuer = open();
    const before = await issuer.issue(live);
    await mesh.rotateRoot({ key: 'new' });
    const after = await issuer.issue(live);
    assert.notEqual(after.roots[0]?.fingerprint, before.roots[0]?.fingerprint);
  });

  it('reads the root of the CA from a file or from its configuration', async () => {
    await start();
    host.setConfigMap(ROOTS, undefined);
    host.setFile('/etc/roots.pem', mesh.rootPem);
    assert.ok(await open({ root: { file: '/etc/roots.pem' } }).issue(live));
    const inline = open({ root: { inline: mesh.rootPem } });
    assert.ok(await inline.issue(live));
    assert.equal(inline.roots, undefined);
  });

  it('follows the root of the CA from a ClusterTrustBundle', async () => {
    await start({ publishRoots: (pem) => host.setClusterTrustBundle(BUNDLE, pem) });
    const issuer = open({ root: { clusterTrustBundle: {} } });
    const before = await issuer.issue(live);
    const abort = new AbortController();
    const roots = issuer.roots?.(abort.signal)[Symbol.asyncIterator]();
    await roots?.next();
    await mesh.rotateRoot({ key: 'new' });
    const named: readonly Certificate[] = (await roots?.next())?.value;
    assert.notEqual(named[0]?.fingerprint, before.roots[0]?.fingerprint);
    assert.match(
      issuer.stale?.(before) ?? '',
      /ClusterTrustBundle istio\.io:istiod-ca:root-cert no longer has the root/,
    );
    assert.ok(await issuer.issue(live));
    abort.abort();
    await roots?.next().catch(() => {});
  });

  it('says what to do while there is no ClusterTrustBundle, or one that holds nothing', async () => {
    await start({ publishRoots: () => {} });
    const root = { clusterTrustBundle: {} };
    const missing =
      /ClusterTrustBundle istio\.io:istiod-ca:root-cert does not exist: istiod writes.*v1beta1\/clustertrust/;
    await refused('ERR_MESH_CONFIG', missing, { root });
    host.setClusterTrustBundle(BUNDLE, 'nothing');
    await refused('ERR_MESH_CONFIG', /has no certificates that can be read/, { root });
    assert.match((await examined(open({ root })))[0]?.message ?? '', /^ERR_MESH_CONFIG: ClusterTrustBundle/);
    host.setClusterTrustBundle(BUNDLE, mesh.rootPem);
    assert.deepEqual(brief(await examined(open({ root })))[0], 'istio-root passed');
  });

  it('reads no roots for a renewal while it follows them', async () => {
    await start();
    const issuer = open();
    const abort = new AbortController();
    const roots = issuer.roots?.(abort.signal)[Symbol.asyncIterator]();
    await roots?.next();
    const watches = host.touched;
    await issuer.issue(live);
    // Only the token.
    assert.equal(host.touched, watches + 1);
    abort.abort();
    await roots?.next().catch(() => {});
    host.setConfigMap(ROOTS, undefined);
    await assert.rejects(issuer.issue(live), MeshError);
  });

  it('parses the roots once for all that read them in the same place', async () => {
    await start();
    Object.assign(host, { share: sharing() });
    const abort = new AbortController();
    const followed = open().roots?.(abort.signal)[Symbol.asyncIterator]();
    const { value: roots } = (await followed?.next()) ?? {};
    const issued = await Promise.all([open().issue(live), open().issue(live)]);
    assert.ok(roots && issued.every((identity) => identity.roots === roots));
    abort.abort();
    await followed?.next().catch(() => {});
  });

  it('says that a leaf is stale once its root is dropped, but not when another root is added', async () => {
    await start();
    const issuer = open();
    const current = await issuer.issue(live);
    const abort = new AbortController();
    const roots = issuer.roots?.(abort.signal)[Symbol.asyncIterator]();
    assert.ok(roots);
    await roots.next();
    assert.equal(issuer.stale?.(current), undefined);
    await mesh.overlapRoot();
    assert.equal((await roots.next()).value.length, 2);
    assert.equal(issuer.stale?.(current), undefined);
    await mesh.overlapRoot();
    await mesh.overlapRoot();
    assert.equal((await roots.next()).value.length, 1);
    assert.match(issuer.stale?.(current) ?? '', /ConfigMap emissary\/istio-ca-root-cert no longer has the root/);
    abort.abort();
    await roots.next().catch(() => {});
  });

  it('does not call a leaf stale for a renewed root of the same key', async () => {
    await start();
    const issuer = open();
    const current = await issuer.issue(live);
    const roots = issuer.roots?.(live)[Symbol.asyncIterator]();
    await roots?.next();
    await mesh.rotateRoot({ key: 'same' });
    await roots?.next();
    assert.equal(issuer.stale?.(current), undefined);
  });

  it('has no roots of its own if those of the CA say nothing about workloads', async () => {
    await start();
    assert.equal(open({ includeCaRoots: false }).roots, undefined);
  });

  it('reports a ConfigMap without certificates and keeps watching', async () => {
    await start();
    const roots = open().roots?.(live)[Symbol.asyncIterator]();
    assert.ok(roots);
    await roots.next();
    const next = roots.next();
    host.setConfigMap(ROOTS, { 'root-cert.pem': 'nothing' });
    await settle();
    host.setConfigMap(ROOTS, undefined);
    await settle();
    await mesh.rotateRoot();
    assert.equal((await next).done, false);
    assert.deepEqual(host.reports.map(codeOf), ['ERR_MESH_CONFIG', 'ERR_MESH_CONFIG']);
    assert.match(
      host.reports[1]?.message ?? '',
      /ConfigMap emissary\/istio-ca-root-cert with key root-cert.pem does not exist/,
    );
  });

  const refused = async (code: MeshErrorCode, message: RegExp, ca: object = {}, rest: object = {}) => {
    const issuer = open(ca, rest);
    const error = await issuer.issue(live).then(
      () => assert.fail('it was issued'),
      (error: unknown) => error,
    );
    assert.ok(error instanceof MeshError, inspect(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    const output = inspect(error, { depth: null }) + host.lines.join();
    for (const token of host.tokensGiven) assert.ok(!output.includes(token), 'the token is in the error');
    assert.ok(!output.includes('PRIVATE KEY'));
    return { issuer, error };
  };

  const FAULTS: [CaFault, MeshErrorCode, RegExp][] = [
    ['wrongKey', 'ERR_MESH_BAD_RESPONSE', /comes with another key/],
    [
      'otherIdentity',
      'ERR_MESH_BAD_RESPONSE',
      /for spiffe:\/\/cluster.local\/ns\/other\/sa\/other; expected .*emissary/,
    ],
    ['expiredLeaf', 'ERR_MESH_BAD_RESPONSE', /expired at 20/],
    ['emptyChain', 'ERR_MESH_BAD_RESPONSE', /sent 0 certificates; expected a leaf and a root/],
    ['unchained', 'ERR_MESH_BAD_RESPONSE', /is not under the roots that came with it/],
    ['garbage', 'ERR_MESH_BAD_RESPONSE', /certificates that cannot be read/],
    ['internal', 'ERR_MESH_UNAVAILABLE', /INTERNAL; its CA is not ready or cannot sign/],
    [{ status: 14, details: 'shutting down' }, 'ERR_MESH_UNAVAILABLE', /UNAVAILABLE; it is restarting or overloaded/],
    [{ status: 4, details: 'late' }, 'ERR_MESH_TIMEOUT', /DEADLINE_EXCEEDED/],
    [{ status: 8, details: 'slow down' }, 'ERR_MESH_RATE_LIMITED', /RESOURCE_EXHAUSTED/],
    [{ status: 7, details: 'denied' }, 'ERR_MESH_DENIED', /PERMISSION_DENIED/],
    [{ status: 12, details: 'no such thing' }, 'ERR_MESH_CONFIG', /no CA answers there/],
    [{ status: 5, details: 'what' }, 'ERR_MESH_BAD_RESPONSE', /NOT_FOUND/],
  ];
  for (const [fault, code, message] of FAULTS) {
    const name = typeof fault === 'string' ? fault : `status ${fault.status}`;
    it(`reports ${name} as ${code}, and recovers`, async () => {
      await start();
      mesh.fail(fault);
      const { issuer } = await refused(code, message);
      mesh.fail(undefined);
      assert.equal((await issuer.issue(live)).id, ID);
    });
  }

  it('explains a refused token: expired', async () => {
    await start();
    host.mint = () => istioToken({ namespace: 'emissary', account: 'emissary', expires: clock.now() - 1000 });
    await refused(
      'ERR_MESH_TOKEN',
      /of system:serviceaccount:emissary:emissary, audience istio-ca, valid until .*expired/,
    );
  });

  it('explains a refused token: for another audience', async () => {
    await start();
    host.mint = () => istioToken({ namespace: 'emissary', account: 'emissary', audience: 'api' });
    await refused('ERR_MESH_TOKEN', /audience api, .* lacks audience istio-ca/);
  });

  it('explains a refused token: it looks right, so the cluster id may be wrong', async () => {
    await start({ clusterId: 'east' });
    await refused('ERR_MESH_DENIED', /looks right; is "Kubernetes" what istiod calls this cluster/);
    assert.ok(await open({ clusterId: 'east' }).issue(live));
  });

  it('explains a token that is not valid at all', async () => {
    await start();
    host.mint = () => 'opaque';
    await refused('ERR_MESH_TOKEN', /the token, which is not a JWT, has expired or is damaged/);
    const fromFile = { serviceAccount: undefined, tokenFile: '/token' };
    await refused('ERR_MESH_TOKEN', /is not a ServiceAccount's; correct tokenFile, or set id/, fromFile);
  });

  it('names the trust domain to set when the CA has another', async () => {
    await start({ trustDomain: 'example.org' });
    await refused('ERR_MESH_CONFIG', /set trustDomain: example.org/);
    assert.ok(await open({}, { trustDomain: 'example.org' }).issue(live));
  });

  it('reports when the lifetime is more than istiod allows', async () => {
    await start({ maxLeafLifetimeMs: HOUR });
    await refused('ERR_MESH_CONFIG', /INVALID_ARGUMENT; .*lower ttl/, {
      ttl: '2h',
    });
  });

  it('waits for the ConfigMap with the roots', async () => {
    await start();
    host.setConfigMap(ROOTS, undefined);
    const { issuer } = await refused('ERR_MESH_CONFIG', /istiod writes it into the namespaces that it discovers/);
    host.setConfigMap(ROOTS, { 'root-cert.pem': mesh.rootPem });
    assert.ok(await issuer.issue(live));
  });

  it('does not send its token to a CA whose certificate is under other roots', async () => {
    await start();
    host.setConfigMap(ROOTS, { 'root-cert.pem': formatCertificates([SandboxCa.root().root]) });
    await refused('ERR_MESH_TLS', /compare root and serverName with its certificate/);
    await refused('ERR_MESH_TLS', /compare root and serverName/, {
      root: { inline: mesh.rootPem },
      serverName: 'other',
    });
    assert.equal(mesh.requests, 0);
  });

  it('distinguishes a CA that is not reachable from one that refuses', async () => {
    await start();
    await mesh.outage(true);
    const { issuer } = await refused(
      'ERR_MESH_UNREACHABLE',
      /CA istiod.istio-system.svc at 127.0.0.1:\d+: UNAVAILABLE/,
    );
    await mesh.outage(false);
    assert.ok(await issuer.issue(live));
  });

  it("passes on the host's error about the token", async () => {
    await start();
    const denied = new MeshError('ERR_MESH_TOKEN', 'no right to create tokens for emissary');
    host.mint = () => Promise.reject(denied);
    await assert.rejects(open().issue(live), denied);
  });

  it('is checked: root, connection, token and a certificate, each with what is wrong', async () => {
    await start();
    const good = await examined(open());
    assert.deepEqual(brief(good), [
      'istio-root passed',
      'istio-connection passed',
      'istio-token passed',
      'istio-issue passed',
    ]);
    assert.match(good[3]?.message ?? '', /^issued spiffe:\/\/cluster.local\/ns\/emissary\/sa\/emissary until /);
    const sparing = await examined(open(), { issue: false });
    assert.equal(sparing.at(-1)?.state, 'skipped');
    host.mint = () => Promise.reject(new MeshError('ERR_MESH_TOKEN', 'no right to create tokens for emissary'));
    assert.deepEqual(brief(await examined(open())).slice(1), ['istio-connection passed', 'istio-token failed']);
    host.setConfigMap(ROOTS, undefined);
    assert.deepEqual(brief(await examined(open())), ['istio-root failed', 'istio-token failed']);
  });

  it('is checked without a token if doctor may not mint one, and within the time limit', async () => {
    await start();
    host.mint = () => Promise.reject(new NotSeen('you may not create tokens'));
    assert.deepEqual(brief(await examined(open())), [
      'istio-root passed',
      'istio-connection passed',
      'istio-token skipped',
    ]);
    host.mint = () => new Promise(() => {});
    const [, , late] = await examined(open(), { limitMs: 500 });
    assert.match(late?.message ?? '', /no answer within 0.5 s/);
  });
});

const codeOf = (error: Error) => (error instanceof MeshError ? error.code : String(error));
