import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';

import { findPath } from '../../src/pki/chain.ts';
import { Follower } from './consul-follower.ts';
import { type ConsulKind, type ConsulSetup, type ConsulTarget, tokenIssuer } from './consul-target.ts';

const FACES = ['http', 'grpc'] as const;
type Face = (typeof FACES)[number];

const MINUTE = 60_000;
/** For a machine that is busy building; the real waits are a minute and a half at most. */
const CASE_TIMEOUT_MS = 180_000;
/** Each case has its own Consul and mostly waits for it; more at once would slow down the start of real ones. */
const CASES_AT_ONCE = 4;
const METHOD = 'platform-jwt';
const TOKEN_FILE = '/run/consul/token';

type Record = (name: string, outcome: 'ok' | 'failed') => void;

/** Every case of a Consul that the adapter must handle, on each of its two APIs. */
export function consulSuite(kind: ConsulKind, record: Record = () => {}): void {
  describe(`Consul, ${kind.name}`, { concurrency: CASES_AT_ONCE }, () => cases(kind, record));
}

function cases(kind: ConsulKind, record: Record): void {
  const add = (title: string, setup: ConsulSetup, run: (target: ConsulTarget) => Promise<void>) =>
    test(`${kind.name}: ${title}`, { timeout: CASE_TIMEOUT_MS }, async () => {
      await using target = await kind.start(setup);
      try {
        await run(target);
        record(title, 'ok');
      } catch (error) {
        record(title, 'failed');
        throw error;
      }
    });

  for (const face of FACES) {
    add(`the first leaf and roots come over ${face}, ACLs on`, { acl: true }, async (target) => {
      await using follower = await withToken(target, face);
      const identity = await follower.identity();
      assert.match(identity.id, /^spiffe:\/\/[0-9a-f-]{36}\.consul\/ns\/default\/dc\/dc1\/svc\/ambassador$/);
      assert.equal(identity.roots.length, 1);
      assert.equal(identity.key.publicKeyFingerprint, leafOf(identity).publicKeyFingerprint);
      assertVerifies(identity, identity.roots, target);
    });

    add(`the first leaf comes over ${face} with TLS and a CA file`, { acl: true, tls: true }, async (target) => {
      await using follower = await withToken(target, face);
      assertVerifies(await follower.identity(), follower.last.roots, target);
    });

    add(`a leaf is renewed in its own window over ${face}`, { acl: true, leafLifetimeMs: 100_000 }, async (target) => {
      await using follower = await withToken(target, face);
      const first = await follower.identity();
      const next = await follower.identity((identity) => leafOf(identity).fingerprint !== leafOf(first).fingerprint);
      assert.ok(leafOf(next).notBefore >= leafOf(first).notBefore);
      assert.notEqual(next.key.publicKeyFingerprint, first.key.publicKeyFingerprint);
    });

    for (const crossSign of [true, false]) {
      const how = crossSign ? 'with' : 'without';
      add(
        `both roots come before the leaf of a root rotated ${how} cross-signing, over ${face}`,
        { acl: true },
        async (target) => {
          await using follower = await withToken(target, face);
          const first = await follower.identity();
          await target.rotateRoot({ crossSign });
          const next = await follower.identity(
            (identity) => leafOf(identity).authorityKeyId !== leafOf(first).authorityKeyId,
          );
          const before = follower.seen[follower.seen.indexOf(next) - 1];
          assert.ok(before);
          assert.equal(leafOf(before).fingerprint, leafOf(first).fingerprint);
          assert.deepEqual(names(before.roots), names(next.roots));
          assert.equal(next.roots.length, 2);
          assertVerifies(before, before.roots, target);
          assertVerifies(next, next.roots, target);
          assert.equal(verifies(next, first.roots, target), crossSign);
        },
      );
    }

    add(`a deleted token is replaced by a new login over ${face}`, { acl: true }, async (target) => {
      await using follower = await withLogin(target, face);
      const first = await follower.identity();
      assert.equal(await target.loginTokens(), 1);
      await target.deleteLoginTokens();
      await target.rotateRoot({ crossSign: true });
      const next = await follower.identity(
        (identity) => leafOf(identity).authorityKeyId !== leafOf(first).authorityKeyId,
      );
      assertVerifies(next, next.roots, target);
      assert.equal(await target.loginTokens(), 1);
    });

    add(
      `a token that lives a minute is replaced in time over ${face}`,
      { acl: true, leafLifetimeMs: 170_000 },
      async (target) => {
        await using follower = await withLogin(target, face, MINUTE);
        const first = await follower.identity();
        const expired = target.clock.now() + MINUTE;
        const next = await follower.identity(
          (identity) =>
            leafOf(identity).notBefore + 60_000 > expired && leafOf(identity).fingerprint !== leafOf(first).fingerprint,
        );
        assertVerifies(next, next.roots, target);
        assert.ok((await target.loginTokens()) <= 2);
      },
    );

    add(`the login ends with a logout over ${face}`, { acl: true }, async (target) => {
      {
        await using follower = await withLogin(target, face);
        await follower.identity();
        assert.equal(await target.loginTokens(), 1);
      }
      assert.equal(await target.loginTokens(), 0);
    });

    add(`the limit on signing is named with a wait inside its window over ${face}`, { acl: true }, async (target) => {
      await target.limitSigning();
      await using follower = await withToken(target, face);
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_RATE_LIMITED');
      assert.ok(typeof error.retry === 'object' && error.retry.afterMs >= 0 && error.retry.afterMs <= 30_000);
      assert.equal(follower.seen.length, 0);
    });

    add(`a rebuilt cluster is followed to its new trust domain over ${face}`, {}, async (target) => {
      await using follower = follow(target, face, {});
      const first = await follower.identity();
      await target.rebuild();
      const next = await follower.identity(({ id }) => id !== first.id);
      assert.equal(next.id.replace(/^spiffe:\/\/[^/]+/, ''), first.id.replace(/^spiffe:\/\/[^/]+/, ''));
      assertVerifies(next, next.roots, target);
      assert.equal(verifies(next, first.roots, target), false);
    });

    add(`a Connect that is switched off is named over ${face}`, { connectDisabled: true }, async (target) => {
      await using follower = follow(target, face, {});
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_UNSUPPORTED');
      assert.match(error.message, /connect \{ enabled = true \}/);
    });

    add(`a cluster without a leader is waited for over ${face}`, { leaderless: true }, async (target) => {
      await using follower = follow(target, face, {});
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_UNAVAILABLE', error.message);
      assert.equal(error.retry, 'soon');
    });

    add(`a service that the token may not write is named over ${face}`, { acl: true }, async (target) => {
      await using follower = await withToken(target, face, 'other');
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_DENIED', error.message);
      assert.match(error.message, /service:write/);
    });

    add(`a token that does not exist is named over ${face}`, { acl: true }, async (target) => {
      await using follower = follow(target, face, { auth: { token: '5d5e6b3c-0f7a-4d0e-9d55-1b1c2f0c7a11' } });
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_TOKEN', error.message);
      assert.doesNotMatch(error.message, /5d5e6b3c/);
    });

    add(`another datacenter is named over ${face}`, {}, async (target) => {
      await using follower = follow(target, face, { datacenter: 'dc9' });
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_CONFIG', error.message);
      assert.match(error.message, /datacenter/);
    });

    // Consul enforces this on Sign only since 1.21.2; before, it signed whatever was requested.
    add(`a namespace that the community edition refuses is named over ${face}`, {}, async (target) => {
      await using follower = follow(target, face, { namespace: 'team-a' });
      const outcome = await Promise.race([follower.error(), follower.identity()]);
      if (face === 'grpc' && 'chain' in outcome) return assert.match(outcome.id, /\/ns\/team-a\//);
      assert.ok('code' in outcome && outcome.code === 'ERR_MESH_CONFIG', String(outcome));
      assert.match(outcome.message, /namespace/);
    });

    add(`an auth method that does not exist is named over ${face}`, { acl: true }, async (target) => {
      await using follower = follow(target, face, { auth: { login: { method: 'nope' } } });
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_CONFIG', error.message);
      assert.match(error.message, /auth\.login\.method/);
    });

    add(`a bearer token that does not fit is named over ${face}`, { acl: true }, async (target) => {
      await target.addJwtMethod({ name: METHOD, ...tokenIssuer() });
      await using follower = follow(
        target,
        face,
        { auth: { login: { method: METHOD } } },
        tokenIssuer().mint('ambassador'),
      );
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_DENIED', error.message);
      assert.match(error.message, /audience/);
    });

    add(`plaintext to a TLS port is named over ${face}`, { tls: true }, async (target) => {
      await using follower = new Follower(
        face === 'http'
          ? { http: { address: target.httpAddress.replace('https:', 'http:') } }
          : { datacenter: 'dc1', grpc: { addresses: [target.grpcAddress], plaintext: true } },
        { clock: target.clock },
      );
      const error = await follower.error();
      assert.ok(['ERR_MESH_TLS', 'ERR_MESH_UNREACHABLE'].includes(error.code), error.message);
      assert.match(error.message, /TLS/);
    });

    add(`TLS to a plaintext port is named over ${face}`, {}, async (target) => {
      await using follower = new Follower(
        face === 'http'
          ? { http: { address: target.httpAddress.replace('http:', 'https:') } }
          : { datacenter: 'dc1', grpc: { addresses: [target.grpcAddress] } },
        { clock: target.clock },
      );
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_TLS', error.message);
    });

    add(`a CA that does not match is named over ${face}`, { tls: true }, async (target) => {
      const stranger = SandboxCa.root().certificate.pem;
      await using follower = follow({ ...targetOf(target), apiCa: stranger }, face, {});
      const error = await follower.error();
      assert.equal(error.code, 'ERR_MESH_TLS', error.message);
      assert.match(error.message, /tls\.ca/);
    });
  }

  add(
    'the pair is let in by an intention that allows it, and refused by one that denies it',
    { acl: true, realTime: true },
    async (target) => {
      await using follower = await withToken(target, 'http');
      const identity = await follower.identity();
      for (const verdict of ['allow', 'deny', 'allow'] as const) {
        await target[verdict]('ambassador', 'web');
        await using path = await target.path('web');
        assert.equal(await path.call(identity), verdict === 'allow' ? 'allowed' : 'refused');
      }
    },
  );
}

type Addressed = Pick<ConsulTarget, 'clock' | 'httpAddress' | 'grpcAddress' | 'apiCa'>;

function targetOf({ clock, httpAddress, grpcAddress, apiCa }: ConsulTarget): Addressed {
  return { clock, httpAddress, grpcAddress, apiCa };
}

function follow(
  target: Addressed,
  face: Face,
  config: object,
  bearer = '',
  files = new Map<string, string>(),
): Follower {
  const tls = target.apiCa === undefined ? {} : { tls: { ca: { inline: target.apiCa } } };
  const way =
    face === 'http'
      ? { http: { address: target.httpAddress, ...tls } }
      : { grpc: { addresses: [target.grpcAddress], ...tls, plaintext: target.apiCa === undefined } };
  const datacenter = face === 'grpc' ? { datacenter: 'dc1' } : {};
  return new Follower({ ...datacenter, ...way, ...config }, { clock: target.clock, files, bearer: () => bearer });
}

async function withToken(target: ConsulTarget, face: Face, service = 'ambassador'): Promise<Follower> {
  const files = new Map([[TOKEN_FILE, `${await target.createToken(service)}\n`]]);
  return follow(target, face, { auth: { tokenFile: TOKEN_FILE } }, '', files);
}

async function withLogin(target: ConsulTarget, face: Face, maxTokenTtlMs?: number): Promise<Follower> {
  const issuer = tokenIssuer();
  await target.addJwtMethod({ name: METHOD, ...issuer, ...(maxTokenTtlMs === undefined ? {} : { maxTokenTtlMs }) });
  return follow(target, face, { auth: { login: { method: METHOD } } }, issuer.mint('ambassador'));
}

function verifies({ chain }: Identity, roots: Identity['roots'], target: ConsulTarget): boolean {
  const [leaf, ...links] = chain;
  return leaf !== undefined && findPath(leaf, links, roots, target.clock.now()).ok;
}

function assertVerifies(identity: Identity, roots: Identity['roots'], target: ConsulTarget): void {
  assert.ok(verifies(identity, roots, target), `${identity.id} does not verify under its roots`);
}

function names(roots: Identity['roots']): string[] {
  return roots.map(({ fingerprint }) => fingerprint).sort();
}
