import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { openChannel } from '../../src/grpc/channel.ts';
import { GrpcError } from '../../src/grpc/error.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { createCsr } from '../../src/pki/csr.ts';
import { formatPem } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { type Answer, RawSds } from './sds-client.ts';

/** A CA that speaks istiod's API, the sandbox's or a real one. */
export interface CaTarget {
  readonly address: string;
  readonly serverName: string;
  readonly trustDomain: string;
  /** Lifetimes above this many seconds are refused. */
  readonly maxSeconds: number;
  rootPem(): Promise<string>;
  /** A token of this account in namespace `default`. */
  token(account: string, audience: string): Promise<string>;
  stop(): Promise<void>;
}

const METHOD = 'istio.v1.auth.IstioCertificateService/CreateCertificate';

const failsWith = (statusName: string, details?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof GrpcError, String(error));
  assert.equal(error.statusName, statusName, error.message);
  if (details) assert.match(error.details, details);
  return true;
};

/** What the sandbox's CA and istiod have in common. */
export function caSuite(name: string, start: () => Promise<CaTarget>): void {
  describe(`${name} as a CA`, { timeout: 120_000 }, () => {
    let ca: CaTarget;
    before(async () => {
      ca = await start();
    });
    after(() => ca?.stop());

    interface Ask {
      token?: string;
      clusterId?: string;
      csr?: string;
      seconds?: number;
      tls?: { key: string; cert: string };
    }
    const ask = async (options: Ask = {}): Promise<readonly string[]> => {
      const tls = { ca: await ca.rootPem(), serverName: ca.serverName, ...options.tls };
      const channel = openChannel({ address: ca.address, tls });
      const token = options.token ?? (await ca.token('web', 'istio-ca'));
      const metadata: Record<string, string> = { clusterid: options.clusterId ?? 'Kubernetes' };
      if (token !== '') metadata.authorization = `Bearer ${token}`;
      const request = { csr: options.csr ?? csrOf(PrivateKey.generate()), validity_duration: options.seconds ?? 0 };
      try {
        const call = { method: METHOD, metadata, deadlineMs: 10_000 };
        return (await channel.unary<{ cert_chain: string[] }>(request, call)).cert_chain;
      } finally {
        channel.close();
      }
    };
    const idOf = (account: string) => `spiffe://${ca.trustDomain}/ns/default/sa/${account}`;

    it('answers leaf and root, one in each element', async () => {
      const [leaf, root, ...more] = await ask();
      assert.equal(more.length, 0);
      assert.equal(parseCertificates(leaf ?? '').length, 1);
      assert.equal((root ?? '').trim(), (await ca.rootPem()).trim());
    });

    it('issues to the bearer of the token, whatever the request names', async () => {
      const csr = csrOf(PrivateKey.generate(), { uris: ['spiffe://elsewhere/ns/a/sa/b'] });
      const [leaf] = parseCertificates((await ask({ csr }))[0] ?? '');
      assert.deepEqual(leaf?.names.uris, [idOf('web')]);
      assert.equal(leaf?.subject, '');
      assert.equal(leaf?.extendedKeyUsage.length, 2);
    });

    it('backdates leaves by two minutes and grants the requested lifetime', async () => {
      const asked = Date.now();
      const [leaf] = parseCertificates((await ask({ seconds: 1800 }))[0] ?? '');
      assert.ok(leaf);
      assert.equal(leaf.notAfter - leaf.notBefore, (1800 + 120) * 1000);
      assert.ok(leaf.notAfter > asked + 1_790_000);
    });

    it('refuses a lifetime above its limit', async () => {
      const details = /requested TTL .* is greater than the max allowed TTL/;
      await assert.rejects(ask({ seconds: ca.maxSeconds + 1 }), failsWith('INVALID_ARGUMENT', details));
    });

    it('refuses anything but a request', async () => {
      await assert.rejects(
        ask({ csr: 'nothing' }),
        failsWith('INVALID_ARGUMENT', /CSR signing error \(certificate signing request is not properly encoded\)/),
      );
    });

    for (const [why, options] of [
      ['no token', async () => ({ token: '' })],
      ['a token that is none', async () => ({ token: 'x.y.z' })],
      ['a token for another audience', async () => ({ token: await ca.token('web', 'other') })],
      ['another cluster id', async () => ({ clusterId: 'elsewhere' })],
    ] as [string, () => Promise<Ask>][]) {
      it(`refuses ${why} with the same message`, async () => {
        await assert.rejects(ask(await options()), failsWith('UNAUTHENTICATED', /request authenticate failure/));
      });
    }

    it('accepts an empty cluster id as its own', async () => {
      assert.equal((await ask({ clusterId: '' })).length, 2);
    });

    it('renews for its own client certificate without a token', async () => {
      const key = PrivateKey.generate();
      const [leaf = ''] = await ask({ csr: csrOf(key) });
      const [again = ''] = await ask({ token: '', tls: { key: key.toPem(), cert: leaf } });
      assert.deepEqual(parseCertificates(again)[0]?.names.uris, [idOf('web')]);
    });
  });
}

function csrOf(key: PrivateKey, names: Parameters<typeof createCsr>[1] = { uris: ['spiffe://x/y'] }): string {
  return formatPem('CERTIFICATE REQUEST', createCsr(key, names));
}

/** pilot-agent, or the sandbox's. */
export interface AgentTarget {
  readonly socket: string;
  readonly id: string;
  /** Triggers the next rotation if possible; else it comes by itself. */
  rotate(): Promise<void> | void;
  restart(): Promise<void>;
  /** Its CA goes and comes back. */
  caOutage(on: boolean): Promise<void>;
  stop(): Promise<void>;
}

const BOTH = ['default', 'ROOTCA'];

export function pilotAgentSuite(name: string, start: () => Promise<AgentTarget>): void {
  describe(`${name} as an SDS server`, { timeout: 240_000 }, () => {
    let agent: AgentTarget;
    before(async () => {
      agent = await start();
    });
    after(() => agent?.stop());
    const withClient = async (use: (sds: RawSds) => Promise<void>) => {
      const sds = new RawSds(agent.socket);
      try {
        await use(sds);
      } finally {
        sds.close();
      }
    };
    const subscribed = async (sds: RawSds, names: readonly string[] = BOTH): Promise<Answer> => {
      sds.send(names);
      const answer = await sds.next();
      sds.accept(names, answer);
      return answer;
    };

    it('answers both names at once, roots appended to the chain', () =>
      withClient(async (sds) => {
        const answer = await subscribed(sds);
        assert.deepEqual([...answer.names].sort(), [...BOTH].sort());
        const [leaf, ...rest] = answer.certificates('default');
        assert.deepEqual(leaf?.names.uris, [agent.id]);
        const roots = answer.certificates('ROOTCA').map(({ fingerprint }) => fingerprint);
        assert.deepEqual(
          rest.filter(({ selfSigned }) => selfSigned).map(({ fingerprint }) => fingerprint),
          roots,
        );
        assert.match(answer.version, /^\d{4}-\d{2}-\d{2}T.*\/\d+$/);
      }));

    it('pushes only the new leaf when it rotates', () =>
      withClient(async (sds) => {
        const before = (await subscribed(sds)).certificates('default')[0];
        await agent.rotate();
        let answer = await sds.next();
        while (!answer.names.includes('default')) {
          sds.accept(BOTH, answer);
          answer = await sds.next();
        }
        assert.deepEqual(answer.names, ['default']);
        assert.notEqual(answer.certificates('default')[0]?.fingerprint, before?.fingerprint);
      }));

    it('answers only the added name, and nothing with an earlier nonce', () =>
      withClient(async (sds) => {
        sds.send(['default']);
        const first = await sds.next();
        sds.send(BOTH, { response_nonce: 'stale', version_info: first.version });
        sds.send(BOTH, { response_nonce: first.nonce, version_info: first.version });
        assert.deepEqual((await sds.next()).names, ['ROOTCA']);
      }));

    it('generates a certificate for an unknown name', () =>
      withClient(async (sds) => {
        const answer = await subscribed(sds, ['kubernetes://no-such']);
        assert.deepEqual(answer.certificates('kubernetes://no-such')[0]?.names.uris, [agent.id]);
      }));

    it('requires a node', () =>
      withClient(async (sds) => {
        sds.send(BOTH, { node: undefined });
        await assert.rejects(sds.next(), failsWith('INVALID_ARGUMENT', /missing node/));
      }));

    it('has neither Fetch nor Delta', () =>
      withClient(async (sds) => {
        await assert.rejects(sds.fetch(BOTH), failsWith('UNIMPLEMENTED'));
        await assert.rejects(sds.delta(), failsWith('UNIMPLEMENTED'));
      }));

    it('ends the stream when a rotation finds no CA, and serves again once there is one', () =>
      withClient(async (sds) => {
        await subscribed(sds, ['default']);
        await agent.caOutage(true);
        await agent.rotate();
        await assert.rejects(
          async () => {
            for (;;) sds.accept(['default'], await sds.next());
          },
          failsWith('UNKNOWN', /failed to generate secret for default/),
        );
        await agent.caOutage(false);
        await withClient(async (later) => {
          assert.ok((await subscribed(later)).certificates('default')[0]);
        });
      }));

    it('binds its socket again when it restarts', () =>
      withClient(async (sds) => {
        await subscribed(sds);
        const before = statSync(agent.socket).ctimeMs;
        await agent.restart();
        await assert.rejects(sds.next(), failsWith('UNAVAILABLE'));
        assert.notEqual(statSync(agent.socket).ctimeMs, before);
        await withClient(async (later) => {
          assert.equal((await subscribed(later)).names.length, 2);
        });
      }));
  });
}

/** SPIRE's agent, or the sandbox's. */
export interface SpireTarget {
  readonly socket: string;
  readonly id: string;
  readonly trustDomain: string;
  rotate(): Promise<void> | void;
  stop(): Promise<void>;
}

const PLAIN = { fields: { disable_spiffe_cert_validation: { boolValue: true } } };

export function spireSuite(name: string, start: () => Promise<SpireTarget>): void {
  describe(`${name} as an SDS server`, { timeout: 240_000 }, () => {
    let spire: SpireTarget;
    before(async () => {
      spire = await start();
    });
    after(() => spire?.stop());
    const withClient = async (use: (sds: RawSds) => Promise<void>) => {
      const sds = new RawSds(spire.socket);
      try {
        await use(sds);
      } finally {
        sds.close();
      }
    };

    it('sends roots inside a validator unless plain ones are requested', () =>
      withClient(async (sds) => {
        sds.send(BOTH);
        const context = (await sds.next()).secret('ROOTCA')?.validation_context;
        assert.equal(context?.trusted_ca, null);
        assert.equal(context?.custom_validator_config?.name, 'envoy.tls.cert_validator.spiffe');
      }));

    it('sends plain roots when the node says so, and keeps them out of the chain', () =>
      withClient(async (sds) => {
        sds.send(BOTH, { node: { id: 'judge', metadata: PLAIN } });
        const answer = await sds.next();
        assert.ok(answer.certificates('ROOTCA')[0]?.selfSigned);
        const chain = answer.certificates('default');
        assert.deepEqual(chain[0]?.names.uris, [spire.id]);
        assert.ok(chain.every(({ selfSigned }) => !selfSigned));
        assert.match(answer.version, /^\d+$/);
      }));

    it('has its names also as SPIFFE IDs', () =>
      withClient(async (sds) => {
        const names = [spire.id, `spiffe://${spire.trustDomain}`];
        sds.send(names);
        assert.deepEqual([...(await sds.next()).names].sort(), [...names].sort());
      }));

    it('sends everything to a client that names nothing', () =>
      withClient(async (sds) => {
        sds.send([]);
        assert.ok((await sds.next()).names.includes(spire.id));
      }));

    for (const names of [
      ['no-such', 'ROOTCA'],
      ['default', 'ROOTCA', 'ALL'],
    ]) {
      it(`refuses ${names.join(' with ')} as a whole`, () =>
        withClient(async (sds) => {
          sds.send(names);
          await assert.rejects(
            sds.next(),
            failsWith('INVALID_ARGUMENT', /not authorized for the requested identities/),
          );
        }));
    }

    it('sends everything that was requested at each update', () =>
      withClient(async (sds) => {
        sds.send(BOTH);
        const before = await sds.next();
        sds.accept(BOTH, before);
        await spire.rotate();
        const after = await sds.next();
        assert.deepEqual([...after.names].sort(), [...BOTH].sort());
        assert.notEqual(after.certificates('default')[0]?.fingerprint, before.certificates('default')[0]?.fingerprint);
      }));

    it('has Fetch, not Delta', () =>
      withClient(async (sds) => {
        assert.deepEqual([...(await sds.fetch(BOTH)).names].sort(), [...BOTH].sort());
        await assert.rejects(sds.delta(), failsWith('UNIMPLEMENTED'));
      }));
  });
}
