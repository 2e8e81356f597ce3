import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { inspect } from 'node:util';
import { serve } from '../../sandbox/grpc/server.ts';
import { type Istio, startIstio } from '../../sandbox/istio/istio.ts';
import type { PilotAgent } from '../../sandbox/istio/pilot-agent.ts';
import { certificateResource, rootsResource, type SdsResource, secretResource } from '../../sandbox/istio/sds-wire.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Checking, Source } from '../../src/mesh/adapter.ts';
import { MeshError, type MeshErrorCode } from '../../src/mesh/error.ts';
import { type Identity, leafOf, sameRoots } from '../../src/mesh/identity.ts';
import { brief, examined } from '../../test/support/examined.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RecordingHost } from '../../test/support/recording-host.ts';
import { istio as adapter } from './adapter.ts';

const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';
const HOUR = 3_600_000;

/** One subscription, read value by value. */
class Watch {
  readonly abort = new AbortController();
  readonly #values: AsyncIterator<Identity>;

  constructor(source: Source) {
    this.#values = source.watch(this.abort.signal)[Symbol.asyncIterator]();
  }

  async next(): Promise<Identity> {
    const { value, done } = await this.#values.next();
    assert.ok(!done, 'the stream ended');
    return value;
  }

  async error(): Promise<MeshError> {
    const error = await this.#values.next().then(
      ({ value }) => assert.fail(`a value came: ${inspect(value?.id)}`),
      (error: unknown) => error,
    );
    assert.ok(error instanceof MeshError, inspect(error));
    return error;
  }

  async stop(): Promise<void> {
    this.abort.abort();
    await this.#values.next().catch(() => {});
  }
}

describe('SDS', { timeout: 30_000 }, () => {
  let directory: string;
  let socket: string;
  let clock: FakeClock;
  let host: RecordingHost;
  let mesh: Istio;
  let watches: Watch[];
  const open = (sds: object = {}, rest: object = {}) =>
    adapter.open(adapter.config.parse({ sds: { socket, ...sds }, ...rest }), host) as Source & Checking;
  const watch = (sds: object = {}, rest: object = {}) => {
    const one = new Watch(open(sds, rest));
    watches.push(one);
    return one;
  };
  const refused = async (one: Watch, code: MeshErrorCode, message: RegExp) => {
    const error = await one.error();
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.ok(!inspect(error, { depth: null }).includes('PRIVATE KEY'));
    return error;
  };
  const prints = (identity: Identity) => identity.roots.map(({ fingerprint }) => fingerprint);

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'sds-'));
    socket = join(directory, 'socket');
    clock = new FakeClock(Date.now());
    host = new RecordingHost(clock);
    mesh = await startIstio({ clock });
    watches = [];
  });
  afterEach(async () => {
    for (const one of watches) await one.stop();
    await mesh.stop();
    rmSync(directory, { recursive: true });
  });

  describe('from pilot-agent', () => {
    let agent: PilotAgent;
    beforeEach(async () => {
      agent = await mesh.startPilotAgent({ socket, id: ID });
    });

    it('keeps roots out of the chain and reads a SEC1 key', async () => {
      const identity = await watch().next();
      assert.equal(identity.id, ID);
      assert.equal(identity.chain.length, 1);
      assert.deepEqual(
        prints(identity),
        mesh.roots().map(({ fingerprint }) => fingerprint),
      );
    });

    it('rotates by itself at half of a life, with a new key', async () => {
      const one = watch();
      const before = await one.next();
      const next = one.next();
      await settle();
      // Half of a day, and the jitter of a hundredth of it.
      await clock.advance(12.3 * HOUR);
      assert.notEqual((await next).key.publicKeyFingerprint, before.key.publicKeyFingerprint);
      assert.deepEqual(agent.refusals, []);
      assert.equal(agent.dropped, 0);
    });

    it('holds a leaf until the root that it needs has come', async () => {
      const one = watch();
      const before = await one.next();
      await mesh.rotateRoot({ key: 'new' });
      agent.rotate();
      const after = await one.next();
      assert.ok(leafOf(after).isIssuedBy(after.roots[0] ?? leafOf(after)));
      assert.notDeepEqual(prints(after), prints(before));
    });

    it('subscribes again when that root never comes', async () => {
      const one = watch();
      await one.next();
      await mesh.rotateRoot({ key: 'new' });
      const strange = SandboxCa.root().root;
      agent.spoil = (name, resource) => (name === 'ROOTCA' ? rootsResource(name, [strange]) : resource);
      agent.rotate();
      const error = refused(one, 'ERR_MESH_SILENT', /new leaf, but not its root within 30s/);
      await whileRunning(error, () => clock.advance(10_000));
      agent.spoil = undefined;
      assert.ok(await watch().next());
    });

    it('keeps the old root as well when a new one comes before its first leaf', async () => {
      const one = watch();
      const before = await one.next();
      const root = SandboxCa.root().root;
      agent.spoil = (name, resource) => (name === 'ROOTCA' ? rootsResource(name, [root]) : resource);
      agent.push('ROOTCA');
      const both = await one.next();
      assert.equal(leafOf(both).fingerprint, leafOf(before).fingerprint);
      assert.deepEqual(prints(both), [root.fingerprint, ...prints(before)]);
    });

    it('grows and shrinks its roots with the mesh', async () => {
      const one = watch();
      const counts = [(await one.next()).roots.length];
      for (let step = 0; step < 3; step++) {
        await mesh.overlapRoot();
        agent.rotate();
        let value = await one.next();
        while (!sameRoots(value.roots, mesh.roots())) value = await one.next();
        counts.push(value.roots.length);
      }
      assert.deepEqual(counts, [1, 2, 2, 1]);
    });

    it('ignores what it already has', async () => {
      const one = watch();
      await one.next();
      for (let times = 0; times < 3; times++) agent.push('ROOTCA');
      agent.push('default');
      agent.rotate();
      const after = await one.next();
      assert.equal(leafOf(after).notAfter > clock.now(), true);
      assert.equal(mesh.isCurrent(after), true);
      assert.equal(agent.streams, 1);
    });

    it('reports that the agent lost its CA, and recovers', async () => {
      const one = watch();
      await one.next();
      await mesh.outage(true);
      agent.rotate();
      await refused(one, 'ERR_MESH_UNAVAILABLE', /UNKNOWN; the agent could not get/);
      await refused(watch(), 'ERR_MESH_UNAVAILABLE', /UNKNOWN; the agent could not get/);
      await mesh.outage(false);
      assert.equal((await watch().next()).id, ID);
    });

    it('survives a restart of the agent, whose socket is then another file', async () => {
      const one = watch();
      await one.next();
      await agent.restart();
      const error = await one.error();
      assert.match(error.code, /^ERR_MESH_UN(REACHABLE|AVAILABLE)$/);
      assert.equal((await watch().next()).id, ID);
    });

    it('reports that an agent which ended late deleted the socket of the next one', async () => {
      agent.unlinkSocket();
      await refused(watch(), 'ERR_MESH_UNREACHABLE', /no process serves this socket: is its volume mounted here/);
      await agent.restart();
      assert.ok(await watch().next());
    });

    it('is reopened when it falls silent past three quarters of a life', async () => {
      agent.mute = true;
      const one = watch();
      await one.next();
      const error = refused(one, 'ERR_MESH_SILENT', /sent no new leaf within .*; meshcert subscribes again/);
      await settle();
      await clock.advance(17 * HOUR);
      assert.equal(await Promise.race([error, settle()]), undefined);
      await clock.advance(HOUR);
      await error;
      assert.equal(clock.now() < leafOf(await watch().next()).notAfter, true);
    });

    it('is reopened after the configured time', async () => {
      agent.mute = true;
      const source = open({ expectedRotation: '5m' });
      const [one, again] = [new Watch(source), new Watch(source)];
      watches.push(one, again);
      await one.next();
      const error = refused(one, 'ERR_MESH_SILENT', /within 5m/);
      await settle();
      await clock.advance(300_000);
      await error;
      await again.next();
      const pending = again.next();
      await settle();
      assert.match(host.reports[0]?.message ?? '', /still sends a leaf that should have been replaced/);
      await again.stop();
      await pending.catch(() => {});
    });

    it('refuses a name that pilot-agent makes up a certificate for', async () => {
      await refused(
        watch({ certificateName: 'kubernetes://tls' }),
        'ERR_MESH_CONFIG',
        /no certificate named "kubernetes:\/\/tls"/,
      );
    });

    const spoiled: [string, (name: string) => SdsResource | undefined, MeshErrorCode, RegExp][] = [
      [
        'bytes that are no secret',
        () => ({ type_url: '', value: Buffer.from('\xff\xff') }),
        'ERR_MESH_BAD_RESPONSE',
        /is not a envoy/,
      ],
      [
        'no certificate',
        (name) => tls(name, 'nothing', key()),
        'ERR_MESH_BAD_RESPONSE',
        /certificates that cannot be read/,
      ],
      ['no key', (name) => tls(name, pem(), 'nothing'), 'ERR_MESH_BAD_RESPONSE', /private key that cannot be read/],
      ['another key', (name) => tls(name, pem(), key()), 'ERR_MESH_BAD_RESPONSE', /with another key/],
      ['an expired leaf', (name) => leaf(name, { lifetimeMs: -1000 }), 'ERR_MESH_BAD_RESPONSE', /expired at/],
      [
        'a leaf without a SPIFFE ID',
        (name) => leaf(name, { uris: [], dns: ['web'] }),
        'ERR_MESH_BAD_RESPONSE',
        /expected one SPIFFE ID/,
      ],
      [
        'another trust domain',
        (name) => leaf(name, { uris: ['spiffe://x/y'] }),
        'ERR_MESH_CONFIG',
        /set trustDomain: x/,
      ],
      [
        'a key that a provider holds',
        (name) => provider(name),
        'ERR_MESH_UNSUPPORTED',
        /private key provider \(cryptomb\)/,
      ],
      [
        'an environment variable',
        (name) => secretResource({ name, tls_certificate: { certificate_chain: { environment_variable: 'X' } } }),
        'ERR_MESH_UNSUPPORTED',
        /environment variable/,
      ],
      [
        'an empty secret',
        (name) => secretResource({ name, tls_certificate: {} }),
        'ERR_MESH_BAD_RESPONSE',
        /empty field/,
      ],
    ];
    for (const [what, make, code, message] of spoiled) {
      it(`refuses ${what}, keeps its previous state, and recovers`, async () => {
        const rest = { trustDomain: 'cluster.local' };
        const one = watch({}, rest);
        await one.next();
        agent.spoil = (name, resource) => (name === 'default' ? (make(name) ?? resource) : resource);
        agent.rotate();
        await refused(one, code, message);
        await settle();
        assert.equal(agent.refusals.length, 1);
        assert.equal(agent.crashed, false);
        agent.spoil = undefined;
        assert.equal((await watch({}, rest).next()).id, ID);
      });
    }

    it('reads files and text instead of bytes', async () => {
      const identity = mesh.issueServer(ID);
      host.setFile('/certs/chain.pem', identity.chain[0]?.pem);
      agent.spoil = (name, resource) => {
        if (name !== 'default') return resource;
        const private_key = { inline_string: identity.key.toPem() };
        return secretResource({
          name,
          tls_certificate: { certificate_chain: { filename: '/certs/chain.pem' }, private_key },
        });
      };
      assert.equal(leafOf(await watch().next()).fingerprint, leafOf(identity).fingerprint);
      host.setFile('/certs/chain.pem', undefined);
      await refused(watch(), 'ERR_MESH_CONFIG', /file \/certs\/chain.pem does not exist here/);
    });

    it('survives a client that connects and disconnects', async () => {
      await new Promise<void>((resolve) => {
        const probe = connect(socket, () => probe.end(resolve));
      });
      assert.ok(await watch().next());
    });

    it('is checked with one subscription', async () => {
      assert.deepEqual(brief(await examined(open())), ['istio-sds passed']);
      assert.deepEqual(brief(await examined(open(), { here: false })), ['istio-sds skipped']);
      await agent.stop();
      const [bad] = await examined(open());
      assert.equal(bad?.state, 'failed');
      assert.match(bad?.message ?? '', /no process serves this socket/);
    });
  });

  it('reports that nothing complete came within half a minute', async () => {
    const service = { StreamSecrets: { stream: () => new Promise<void>(() => {}) } };
    const server = await serve({
      services: { 'envoy.service.secret.v3.SecretDiscoveryService': service },
      listen: { path: socket },
    });
    const error = refused(watch(), 'ERR_MESH_SILENT', /within 30s sent no complete identity/);
    await settle();
    await clock.advance(30_000);
    await error;
    await server.stop();
  });

  it('reports a socket that serves something else', async () => {
    const server = await serve({ services: {}, listen: { path: socket } });
    await refused(watch(), 'ERR_MESH_CONFIG', /UNIMPLEMENTED.*correct socket/);
    await server.stop();
  });

  describe('from SPIRE', () => {
    const id = 'spiffe://cluster.local/gateway';

    it('requests a SPIFFE ID and a trust domain by name', async () => {
      await mesh.startSpireAgent({ socket, id });
      const names = { certificateName: id, bundleName: 'spiffe://cluster.local' };
      assert.equal((await watch(names).next()).id, id);
    });

    it('reads roots of its own trust domain from the validator', async () => {
      await mesh.startSpireAgent({ socket, id });
      const identity = await watch({ disableSpiffeValidation: false }).next();
      assert.deepEqual(
        prints(identity),
        mesh.roots().map(({ fingerprint }) => fingerprint),
      );
    });

    it('waits for its registration, and for attestation', async () => {
      const agent = await mesh.startSpireAgent({ socket, id });
      agent.registered = false;
      await refused(watch(), 'ERR_MESH_DENIED', /INVALID_ARGUMENT; SPIRE knows no such identity/);
      agent.registered = true;
      agent.attested = false;
      await refused(watch(), 'ERR_MESH_UNAVAILABLE', /cannot attest this process/);
      agent.attested = true;
      assert.equal((await watch().next()).id, id);
    });

    it('sends everything at each update, of which only changes count', async () => {
      const agent = await mesh.startSpireAgent({ socket, id });
      const one = watch();
      const before = await one.next();
      agent.update();
      agent.update();
      agent.rotate();
      assert.notEqual(leafOf(await one.next()).fingerprint, leafOf(before).fingerprint);
      assert.deepEqual(agent.refusals, []);
    });
  });

  const ca = SandboxCa.root();
  const key = () => ca.identity({ uris: [ID] }).key.toPem();
  const pem = () => leafOf(ca.identity({ uris: [ID] })).pem;
  const tls = (name: string, chain: string, privateKey: string) =>
    secretResource({
      name,
      tls_certificate: { certificate_chain: { inline_string: chain }, private_key: { inline_string: privateKey } },
    });
  const leaf = (name: string, options: object) => {
    const identity = ca.identity({ uris: [ID], lifetimeMs: HOUR, ...options });
    return certificateResource(name, identity.chain, identity.key.toPem());
  };
  const provider = (name: string) =>
    secretResource({ name, tls_certificate: { private_key_provider: { provider_name: 'cryptomb' } } });
});

/** Calls `move` until the promise settles. */
async function whileRunning(promise: Promise<unknown>, move: () => Promise<void>): Promise<void> {
  let running = true;
  const done = promise.finally(() => {
    running = false;
  });
  while (running) await move();
  await done;
}
