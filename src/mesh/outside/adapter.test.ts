import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import { RecordingHost } from '../../../test/support/recording-host.ts';
import { TOY_ID, ToyMesh } from '../../../test/support/toy-mesh.ts';
import type { Adapter, AdapterCore, Issuer, Source } from '../adapter.ts';
import { MeshError, type MeshErrorCode } from '../error.ts';
import type { Identity } from '../identity.ts';
import { CONTRACT_VERSION, outsideAdapter } from './adapter.ts';

const NOTHING = { async [Symbol.asyncDispose]() {} };

/** An adapter that keeps the contract, with some of it changed. */
function plain(changes: Readonly<Record<string, unknown>> = {}): AdapterCore {
  return {
    mesh: 'toy',
    title: 'Toy',
    config: { parse: (input) => input },
    tls: { minTlsVersion: 'v1.2' },
    expect: () => ({ form: 'spiffe', id: TOY_ID }),
    needs: () => [{ kind: 'address', address: 'toy:1', field: 'toy.address' }],
    open: () => ({ ...NOTHING, issue: async () => good() }),
    ...changes,
  };
}

const good = (): Identity => new ToyMesh(SandboxCa.root()).issue();
const load = (adapter: unknown, contractVersion: unknown = CONTRACT_VERSION): Adapter =>
  outsideAdapter({ contractVersion, adapter }, 'toy.js');

const refusal = (code: MeshErrorCode, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof MeshError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, message);
  assert.match(error.message, /^adapter .*toy\.js/);
  return true;
};
const host = () => new RecordingHost(new FakeClock());
const opened = (given: unknown) => load(plain({ open: () => given })).open({}, host());
const issuer = (given: object) => opened({ ...NOTHING, ...given }) as Issuer;
const source = (given: object) => opened({ ...NOTHING, ...given }) as Source;
const never = () => new Promise<never>(() => {});

describe('a module from outside', () => {
  it('that keeps the contract is an adapter with the values of this program', async () => {
    const adapter = load(plain());
    assert.deepEqual(adapter.expect({}, { namespace: 'a' }), { form: 'spiffe', id: TOY_ID, trustDomain: undefined });
    assert.deepEqual(adapter.needs({}, { namespace: 'a' }), [
      { kind: 'address', address: 'toy:1', field: 'toy.address' },
    ]);
    const open = adapter.open({}, host()) as Issuer;
    assert.equal((await open.issue(new AbortController().signal)).id, TOY_ID);
  });

  it('that is no adapter is refused with what is missing', () => {
    const cases: readonly (readonly [unknown, RegExp])[] = [
      [undefined, /does not export "adapter"/],
      [null, /the adapter is null, not an object/],
      [[], /the adapter is an array/],
      [plain({ open: undefined, needs: 1 }), /the adapter has no needs\(\), open\(\)/],
      [plain({ config: {} }), /its config has no parse\(\)/],
      [plain({ mesh: 'no-dashes' }), /its mesh is not a name/],
      [plain({ mesh: 'namespace' }), /its mesh is not a name/],
      [plain({ title: '' }), /it has no title/],
      [plain({ tls: { minTlsVersion: 'v1.0' } }), /tls\.minTlsVersion is not one of v1\.2, v1\.3/],
      [plain({ tokenFields: [{ path: "a'b", names: 'agent' }] }), /is not fields with dots/],
    ];
    for (const [adapter, message] of cases) assert.throws(() => load(adapter), refusal('ERR_ADAPTER_LOAD', message));
  });

  it('of another version of the contract is refused with both versions', () => {
    for (const [version, shown] of [
      [2, '2'],
      [undefined, 'no version'],
      ['1', 'no version'],
    ] as const) {
      const message = new RegExp(`contractVersion ${shown}, and this agent has version 1`);
      assert.throws(
        () => outsideAdapter({ contractVersion: version, adapter: plain() }, 'toy.js'),
        refusal('ERR_ADAPTER_LOAD', message),
      );
    }
  });
});

describe('what an adapter from outside does wrong', () => {
  it('is reported by a code wherever it happens before the mesh is asked', () => {
    const boom = () => {
      throw new Error('boom');
    };
    const place = { namespace: 'a' };
    const broken = (message: RegExp) => refusal('ERR_ADAPTER_BROKEN', message);
    assert.throws(() => load(plain({ expect: boom })).expect({}, place), broken(/expect\(\) failed: boom/));
    assert.throws(() => load(plain({ expect: () => 1 })).expect({}, place), broken(/is a number, not an object/));
    assert.throws(() => load(plain({ tlsFor: boom })).tlsFor?.({}), broken(/tlsFor\(\) failed: boom/));
    assert.deepEqual(load(plain()).tlsFor?.({}), { minTlsVersion: 'v1.2' });
    assert.deepEqual(load(plain({ tlsFor: () => ({ alpnProtocols: 'h2' }) })).tlsFor?.({}), { alpnProtocols: 'h2' });
    assert.throws(() => load(plain({ needs: () => [{ kind: 'x' }] })).needs({}, place), broken(/the kind of a need/));
    const bundle = { kind: 'clusterTrustBundle', name: 'roots' } as const;
    assert.deepEqual(load(plain({ needs: () => [bundle] })).needs({}, place), [bundle]);
    assert.throws(() => load(plain({ open: boom })).open({}, host()), broken(/open\(\) failed: boom/));
    assert.throws(() => opened(undefined), broken(/what open\(\) returns is undefined/));
    assert.throws(() => opened({ watch() {} }), broken(/cannot be disposed of/));
    assert.throws(() => opened({ ...NOTHING }), broken(/either watch\(\) or issue\(\)/));
    assert.throws(() => opened({ ...NOTHING, issue() {}, watch() {} }), broken(/either watch\(\) or issue\(\)/));
    const promised = load(plain({ config: { parse: async () => boom() } }));
    assert.throws(() => promised.config.parse({}), broken(/config\.parse\(\) returns a promise/));
  });

  it('is reported by a code when the identity is none, without a word of its values', async () => {
    const { id, key, chain, roots } = good();
    const cases: readonly (readonly [unknown, RegExp])[] = [
      [undefined, /the identity is undefined/],
      ['SECRET', /the identity is a string/],
      [{ id, key, chain: [], roots }, /its chain is empty/],
      [{ id, key, chain, roots: 'SECRET' }, /its roots is a string, not an array/],
      [{ id, key, chain: [{ pem: 'SECRET' }], roots }, /its chain cannot be read/],
      [{ id, key: 'SECRET', chain, roots }, /its key is a string/],
      [{ id, key: { toPem: () => 'SECRET' }, chain, roots }, /input has no PEM block/],
      [{ id: 7, key, chain, roots }, /its id is a number/],
    ];
    for (const [value, message] of cases) {
      const reported = (error: unknown) => {
        assert.doesNotMatch(String((error as Error).message), /SECRET/);
        return refusal('ERR_ADAPTER_BROKEN', message)(error);
      };
      const { signal } = new AbortController();
      await assert.rejects(issuer({ issue: async () => value }).issue(signal), reported);
      const watch = async function* () {
        yield value;
      };
      await assert.rejects(source({ watch }).watch(signal)[Symbol.asyncIterator]().next(), reported);
    }
  });

  it('is reported by a code when a stream is none, throws anything or ends by itself', async () => {
    const next = (watch: unknown) =>
      source({ watch }).watch(new AbortController().signal)[Symbol.asyncIterator]().next();
    await assert.rejects(
      next(() => 5),
      refusal('ERR_ADAPTER_BROKEN', /watch\(\) failed/),
    );
    await assert.rejects(
      next(() => {
        throw 'text';
      }),
      refusal('ERR_ADAPTER_BROKEN', /something that is no Error was thrown/),
    );
    await assert.rejects(
      next(async function* () {}),
      refusal('ERR_ADAPTER_BROKEN', /watch\(\) ended by itself/),
    );
  });

  it('does not keep its MeshCertificate from ending when it ignores its signal', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const issued = issuer({ issue: never }).issue(abort.signal);
    const watched = source({ watch: () => ({ [Symbol.asyncIterator]: () => ({ next: never, return: never }) }) });
    const value = watched.watch(abort.signal)[Symbol.asyncIterator]().next();
    abort.abort(reason);
    await assert.rejects(issued, reason);
    await assert.rejects(value, reason);
    await issuer({ issue: never, [Symbol.asyncDispose]: () => Promise.reject(new Error('no')) })[Symbol.asyncDispose]();
  });
});

describe('an error of an adapter from outside', () => {
  it('keeps its code, message and pause when another copy of the class made it', async () => {
    class Copy extends Error {
      readonly code = 'ERR_MESH_DENIED';
      readonly retry = { afterMs: 5 };
      get [Symbol.for('meshcert.MeshError')](): true {
        return true;
      }
    }
    const thrown = new Copy('the role is not allowed; ask its owner');
    const given = issuer({ issue: () => Promise.reject(thrown) });
    await assert.rejects(given.issue(new AbortController().signal), (error) => {
      assert.ok(error instanceof MeshError && Object.getPrototypeOf(error) === MeshError.prototype);
      assert.deepEqual([error.code, error.message, error.retry], [thrown.code, thrown.message, { afterMs: 5 }]);
      return true;
    });
  });

  it('with a code that is not in the contract is a defect of the adapter', async () => {
    const thrown = Object.assign(new MeshError('ERR_MESH_TLS', 'what'), { code: 'ERR_OF_MINE' });
    await assert.rejects(
      issuer({ issue: () => Promise.reject(thrown) }).issue(new AbortController().signal),
      refusal('ERR_ADAPTER_BROKEN', /unknown code ERR_OF_MINE: what/),
    );
  });
});
