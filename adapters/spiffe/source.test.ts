import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { serve } from '../../sandbox/grpc/server.ts';
import { SpireAuthority } from '../../sandbox/spiffe/authority.ts';
import { der, type Entry, type WireResponse, WorkloadApi } from '../../sandbox/spiffe/workload-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import type { Checking, Source } from '../../src/mesh/adapter.ts';
import type { MeshError, MeshErrorCode } from '../../src/mesh/error.ts';
import { leafOf } from '../../src/mesh/identity.ts';
import { brief, examined } from '../../test/support/examined.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RecordingHost } from '../../test/support/recording-host.ts';
import { next, refused } from '../../test/support/spiffe-values.ts';
import { spiffe } from './adapter.ts';

const HOUR = 3_600_000;
const GATEWAY = 'spiffe://example.org/gateway';
const OTHER = 'spiffe://example.org/other';

describe('identities from the Workload API', { timeout: 30_000 }, () => {
  let clock: FakeClock;
  let host: RecordingHost;
  let authority: SpireAuthority;
  let api: WorkloadApi;
  let directory: string;
  let socket: string;
  let opened: (Source & Checking)[];

  beforeEach(async () => {
    clock = new FakeClock(Date.now());
    host = new RecordingHost(clock);
    authority = new SpireAuthority({
      ...{ clock, trustDomain: 'example.org', leafLifetimeMs: HOUR, caLifetimeMs: 24 * HOUR },
    });
    directory = await mkdtemp(join(tmpdir(), 'meshcert-spiffe-'));
    socket = join(directory, 'agent.sock');
    opened = [];
    await start([{ id: GATEWAY }]);
  });
  afterEach(async () => {
    for (const one of opened) await one[Symbol.asyncDispose]();
    await api.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const start = async (entries: readonly Entry[]) => {
    await api?.stop();
    api = await WorkloadApi.start({ clock, authority, listen: { path: socket }, entries });
  };
  const open = (config: object = {}) => {
    const one = spiffe.open(spiffe.config.parse({ socket, ...config }), host) as Source & Checking;
    opened.push(one);
    return one;
  };
  const watch = (config?: object) => open(config).watch(new AbortController().signal)[Symbol.asyncIterator]();

  it('are the only one that is offered, and its replacements', async () => {
    const values = watch();
    const first = await next(values);
    assert.equal(first.id, GATEWAY);
    api.rotate();
    assert.notEqual(leafOf(await next(values)).fingerprint, leafOf(first).fingerprint);
    assert.equal(api.streams, 1);
  });

  it('come over TCP on the loopback interface too', async () => {
    await api.stop();
    api = await WorkloadApi.start({ clock, authority, listen: { port: 0 }, entries: [{ id: GATEWAY }] });
    assert.equal((await next(watch({ socket: undefined, address: api.address }))).id, GATEWAY);
    assert.throws(
      () => spiffe.config.parse({ address: '10.0.0.1:8081' }),
      /must be on the loopback interface: the private key travels over it in plaintext/,
    );
  });

  describe('of several', () => {
    beforeEach(() =>
      start([
        { id: GATEWAY, hint: 'edge' },
        { id: OTHER, hint: 'inner' },
        { id: `${OTHER}/second`, hint: 'inner' },
      ]),
    );

    it('are chosen by SPIFFE ID', async () => assert.equal((await next(watch({ id: OTHER }))).id, OTHER));

    it('are chosen by hint, of which the first counts', async () => {
      assert.equal((await next(watch({ hint: 'edge' }))).id, GATEWAY);
      assert.equal((await next(watch({ hint: 'inner' }))).id, OTHER);
    });

    it('are refused with all choices when nothing chooses', async () => {
      const choices = `${GATEWAY} \\(hint "edge"\\), ${OTHER} \\(hint "inner"\\), ${OTHER}/second`;
      await refused(watch(), 'ERR_MESH_CONFIG', new RegExp(`set id or hint to one of: ${choices}`));
    });

    it('are refused when none is the one that was asked for', async () => {
      const message = /offers no identity for spiffe:\/\/example.org\/x with hint "y" \(offered: spiffe/;
      await refused(watch({ id: 'spiffe://example.org/x', hint: 'y' }), 'ERR_MESH_DENIED', message);
    });
  });

  it('are not trusted by the bundle of a federated trust domain', async () => {
    const foreign = SandboxCa.root({ clock, name: 'Foreign' }).certificate;
    api.federated.set('other.example', [foreign]);
    const values = watch();
    const { roots } = await next(values);
    assert.deepEqual(
      roots.map(({ fingerprint }) => fingerprint),
      authority.roots.map(({ fingerprint }) => fingerprint),
    );
    api.federated.set('other.example', [foreign, SandboxCa.root({ clock }).certificate]);
    api.update();
    const pending = next(values).then(() => 'an identity');
    await settle();
    assert.equal(await Promise.race([pending, settle().then(() => 'nothing')]), 'nothing');
    api.rotate();
    assert.equal(await pending, 'an identity');
  });

  it('come with the bundle of the federated trust domain that the upstreams are in, apart from their own', async () => {
    const [first, second] = [SandboxCa.root({ clock }).certificate, SandboxCa.root({ clock }).certificate];
    api.federated.set('third.example', [SandboxCa.root({ clock }).certificate]);
    const config = { upstreamTrustDomain: 'other.example' };
    const message = /offers no bundle of the trust domain other.example \(offered: third.example\); add -federatesWith/;
    await refused(watch(config), 'ERR_MESH_DENIED', message);
    api.federated.set('other.example', []);
    await refused(watch(config), 'ERR_MESH_BAD_RESPONSE', /a bundle of other.example that cannot be read/);
    api.federated.set('other.example', [first]);
    const values = watch(config);
    const { roots, upstream } = await next(values);
    const prints = (certificates: readonly { fingerprint: string }[] = []) =>
      certificates.map((one) => one.fingerprint);
    assert.deepEqual(prints(roots), prints(authority.roots));
    assert.deepEqual([upstream?.trustDomain, prints(upstream?.roots)], ['other.example', prints([first])]);
    api.federated.set('other.example', [first, second]);
    api.update();
    assert.deepEqual(prints((await next(values)).upstream?.roots), prints([first, second]));
    api.federated.delete('other.example');
    api.update();
    await refused(values, 'ERR_MESH_DENIED', message);
  });

  it('have no other trust when the upstreams are in their own trust domain', async () => {
    assert.equal((await next(watch({ upstreamTrustDomain: 'example.org' }))).upstream, undefined);
  });

  it('follow the steps of a rotation of the authority', async () => {
    const values = watch();
    const before = await next(values);
    authority.prepare();
    api.update();
    const prepared = await next(values);
    assert.equal(leafOf(prepared).fingerprint, leafOf(before).fingerprint);
    assert.equal(prepared.roots.length, 2);
    authority.activate();
    api.rotate();
    const after = await next(values);
    assert.notEqual(leafOf(after).fingerprint, leafOf(before).fingerprint);
    authority.revoke();
    api.update();
    assert.equal((await next(values)).roots.length, 1);
  });

  it('are denied without an entry, and come back with it', async () => {
    const values = watch();
    await next(values);
    api.setEntries([]);
    await refused(values, 'ERR_MESH_DENIED', /PERMISSION_DENIED; no registration entry matches this process/);
    await refused(watch(), 'ERR_MESH_DENIED', /no registration entry/);
    api.setEntries([{ id: GATEWAY }]);
    assert.equal((await next(watch())).id, GATEWAY);
  });

  it('outlive an outage of the server, which is reported long before they end', async () => {
    const values = watch();
    const first = await next(values);
    api.serverOutage = true;
    const late = refused(values, 'ERR_MESH_SILENT', /no new certificate in three quarters of the life/);
    await settle();
    await clock.advance(0.7 * HOUR);
    assert.equal(host.reports.length, 0);
    await clock.advance(0.1 * HOUR);
    await late;
    const again = watch();
    assert.equal(leafOf(await next(again)).fingerprint, leafOf(first).fingerprint);
    const renewed = next(again);
    await settle();
    assert.deepEqual(
      host.reports.map((error) => (error as MeshError).code),
      ['ERR_MESH_SILENT'],
    );
    api.serverOutage = false;
    api.rotate();
    assert.notEqual(leafOf(await renewed).fingerprint, leafOf(first).fingerprint);
  });

  const spoiled: [string, (response: WireResponse) => WireResponse, MeshErrorCode, RegExp][] = [
    ['no identity', (all) => ({ ...all, svids: [] }), 'ERR_MESH_DENIED', /offers no identity \(offered: none\)/],
    [
      'bytes that are no certificate',
      withSvid({ x509_svid: Buffer.from('x') }),
      'ERR_MESH_BAD_RESPONSE',
      /X.509-SVID that cannot be read/,
    ],
    ['no bundle', withSvid({ bundle: Buffer.alloc(0) }), 'ERR_MESH_BAD_RESPONSE', /bundle that cannot be read/],
    [
      'no key',
      withSvid({ x509_svid_key: Buffer.alloc(3) }),
      'ERR_MESH_BAD_RESPONSE',
      /private key that cannot be read/,
    ],
    [
      'a certificate under another name',
      withSvid({ spiffe_id: OTHER }),
      'ERR_MESH_BAD_RESPONSE',
      /as that of another SPIFFE ID/,
    ],
    [
      "a leaf of a foreign domain that claims the home domain's ID",
      (all) => {
        const { chain, key } = SandboxCa.root().identity({ uris: [GATEWAY] });
        const pair = { x509_svid: der(chain), x509_svid_key: key.keyObject.export({ type: 'pkcs8', format: 'der' }) };
        return withSvid(pair)(all);
      },
      'ERR_MESH_BAD_RESPONSE',
      /not under the roots that came with it/,
    ],
  ];
  for (const [what, spoil, code, message] of spoiled) {
    it(`are refused when they come with ${what}, and recover`, async () => {
      api.spoil = spoil;
      await refused(watch(), code, message);
      api.spoil = undefined;
      assert.equal((await next(watch())).id, GATEWAY);
    });
  }

  it('are refused from another trust domain', async () => {
    await refused(watch({ trustDomain: 'other.example' }), 'ERR_MESH_CONFIG', /set trustDomain: example.org/);
  });

  const statuses: [number, MeshErrorCode, RegExp][] = [
    [grpcStatus.INVALID_ARGUMENT, 'ERR_MESH_CONFIG', /correct socket or address/],
    [grpcStatus.UNAUTHENTICATED, 'ERR_MESH_DENIED', /cannot attest this process/],
    [grpcStatus.UNAVAILABLE, 'ERR_MESH_UNAVAILABLE', /the published certificate stays/],
    [grpcStatus.INTERNAL, 'ERR_MESH_UNAVAILABLE', /see its logs/],
  ];
  for (const [status, code, message] of statuses) {
    it(`are reported as ${code} of status ${grpcStatus[status]}`, async () => {
      await api.stop();
      const fail = async () => {
        throw new GrpcError(status, 'SECRET details');
      };
      const services = { SpiffeWorkloadAPI: { FetchX509SVID: { stream: fail } } };
      const server = await serve({ services, listen: { path: socket } });
      try {
        await refused(watch(), code, message);
      } finally {
        await server.stop();
      }
    });
  }

  it('are reported where nothing listens, and where something else does', async () => {
    await api.stop();
    await refused(watch(), 'ERR_MESH_UNREACHABLE', /CSI volume mounted here/);
    const server = await serve({ services: {}, listen: { path: socket } });
    await refused(watch(), 'ERR_MESH_CONFIG', /there is no Workload API/);
    await server.stop();
  });

  it('are checked with one subscription', async () => {
    assert.deepEqual(brief(await examined(open())), ['spiffe-svid passed']);
    assert.deepEqual(brief(await examined(open(), { here: false })), ['spiffe-svid skipped']);
    await api.outage(true);
    assert.deepEqual(brief(await examined(open())), ['spiffe-svid failed']);
  });
});

function withSvid(change: object): (response: WireResponse) => WireResponse {
  return (response) => ({ ...response, svids: response.svids.map((svid) => ({ ...svid, ...change })) });
}
