import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { inspect } from 'node:util';
import { FileWriter } from '../../sandbox/file/writer.ts';
import { type LeafOptions, SandboxCa } from '../../sandbox/tls/ca.ts';
import { fileTexts } from '../../src/agent/file-informer.ts';
import { ANY } from '../../src/config/allow.ts';
import type { Checking, Source } from '../../src/mesh/adapter.ts';
import { MeshError, type MeshErrorCode } from '../../src/mesh/error.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { brief, examined } from '../../test/support/examined.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RecordingHost } from '../../test/support/recording-host.ts';
import { file } from './adapter.ts';

const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';
const HOUR = 3_600_000;
const [CHAIN, KEY, ROOTS] = ['/certs/tls.crt', '/certs/tls.key', '/certs/ca.crt'];
const DIRECTORY = { directory: '/certs' };

describe('certificates from files', { timeout: 120_000 }, () => {
  let clock: FakeClock;
  let host: RecordingHost;
  let ca: SandboxCa;
  let stop: AbortController;
  beforeEach(() => {
    clock = new FakeClock(Date.now());
    host = new RecordingHost(clock);
    ca = SandboxCa.root({ clock });
    stop = new AbortController();
  });
  afterEach(() => stop.abort(new Error('the test is over')));

  const issue = (options: LeafOptions = {}, from = ca) => from.identity({ uris: [ID], lifetimeMs: HOUR, ...options });
  const write = (identity: Identity) => {
    host.setFile(CHAIN, formatCertificates(identity.chain));
    host.setFile(KEY, identity.key.toPem());
    host.setFile(ROOTS, formatCertificates(identity.roots));
    return identity;
  };
  const open = (config: object = DIRECTORY) => file.open(file.config.parse(config), host) as Source & Checking;
  const watch = (config?: object) => new Watched(open(config), stop.signal);
  const refused = async (one: Watched, code: MeshErrorCode, message: RegExp) => {
    const error = await one.next().then(
      () => assert.fail('an identity came'),
      (reason) => reason,
    );
    assert.ok(error instanceof MeshError, inspect(error));
    assert.equal(error.code, code);
    assert.match(error.message, message);
  };

  it('publishes nothing while the key of the next certificate has not been written', async () => {
    const before = write(issue());
    const one = watch();
    assert.equal(leafOf(await one.next()).fingerprint, leafOf(before).fingerprint);
    const after = issue();
    host.setFile(CHAIN, formatCertificates(after.chain));
    const next = one.next();
    await settle();
    assert.equal(one.seen, 1);
    host.setFile(KEY, after.key.toPem());
    assert.equal(leafOf(await next).fingerprint, leafOf(after).fingerprint);
    assert.deepEqual(host.reports, []);
  });

  it('waits while a file is empty or cut short', async () => {
    const { key, chain, roots } = issue();
    host.setFile(CHAIN, '');
    host.setFile(KEY, key.toPem().slice(0, 40));
    host.setFile(ROOTS, formatCertificates(roots));
    const one = watch();
    const next = one.next();
    await settle();
    host.setFile(CHAIN, formatCertificates(chain));
    await settle();
    assert.equal(one.seen, 0);
    host.setFile(KEY, key.toPem());
    assert.equal((await next).id, ID);
  });

  it('tells that certificate and key still do not match after some seconds', async () => {
    write(issue());
    host.setFile(KEY, issue().key.toPem());
    const reported = refused(watch(), 'ERR_MESH_BAD_RESPONSE', /tls\.crt and \/certs\/tls\.key: .* with another key/);
    await settle();
    await clock.advance(15_000);
    await reported;
  });

  it('counts those seconds from the first reading that did not match', async () => {
    write(issue());
    host.setFile(KEY, issue().key.toPem());
    const reported = refused(watch(), 'ERR_MESH_BAD_RESPONSE', /with another key/);
    await settle();
    for (let round = 0; round < 3; round++) {
      await clock.advance(5_000);
      host.setFile(KEY, issue().key.toPem());
      await settle();
    }
    await reported;
  });

  it('waits for the root of a leaf that was written first, and keeps the root that a leaf still needs', async () => {
    const before = write(issue());
    const one = watch();
    await one.next();
    const next = SandboxCa.root({ clock, name: 'Next' });
    host.setFile(ROOTS, next.certificate.pem);
    const both = await one.next();
    assert.equal(leafOf(both).fingerprint, leafOf(before).fingerprint);
    assert.equal(both.roots.length, 2);
    const after = write(issue({}, next));
    assert.equal(leafOf(await one.next()).fingerprint, leafOf(after).fingerprint);
  });

  const wrong: [string, LeafOptions, object, MeshErrorCode, RegExp][] = [
    ['an expired certificate', { lifetimeMs: -1000 }, {}, 'ERR_MESH_BAD_RESPONSE', /expired at .*is it still renewed/],
    ['a certificate without a SPIFFE ID', { uris: [], dns: ['web'] }, {}, 'ERR_MESH_BAD_RESPONSE', /one SPIFFE ID/],
    [
      'another SPIFFE ID',
      {},
      { id: 'spiffe://cluster.local/x' },
      'ERR_MESH_BAD_RESPONSE',
      /expected spiffe:\/\/cluster.local\/x/,
    ],
    ['another trust domain', {}, { trustDomain: 'example.org' }, 'ERR_MESH_CONFIG', /set trustDomain: cluster.local/],
  ];
  for (const [what, leaf, config, code, message] of wrong) {
    it(`refuses ${what}`, async () => {
      write(issue(leaf));
      const reported = refused(watch({ ...DIRECTORY, ...config }), code, message);
      await settle();
      await clock.advance(15_000);
      await reported;
    });
  }

  it('refuses a certificate that is not under the roots beside it', async () => {
    write(issue());
    host.setFile(ROOTS, SandboxCa.root({ clock }).certificate.pem);
    const reported = refused(watch(), 'ERR_MESH_BAD_RESPONSE', /tls\.crt and \/certs\/ca\.crt: .*not under the roots/);
    await settle();
    await clock.advance(15_000);
    await reported;
  });

  it('takes a DNS name where the configuration says so', async () => {
    write(issue({ uris: [], dns: ['gateway.example.org'] }));
    assert.equal((await watch({ ...DIRECTORY, id: 'gateway.example.org' }).next()).id, 'gateway.example.org');
  });

  it('names each file that is missing', async () => {
    await refused(watch(), 'ERR_MESH_UNAVAILABLE', /the files \/certs\/tls\.crt, .* do not exist/);
    write(issue());
    host.setFile(ROOTS, undefined);
    await refused(watch(), 'ERR_MESH_UNAVAILABLE', /the file \/certs\/ca\.crt does not exist or cannot be read/);
  });

  it('tells once that nobody renews the files, long before the certificate ends', async () => {
    const { notBefore, notAfter } = leafOf(write(issue()));
    const one = watch();
    await one.next();
    const next = one.next();
    await settle();
    await clock.advance((notAfter - notBefore) * 0.7);
    assert.equal(host.reports.length, 0);
    await clock.advance((notAfter - notBefore) * 0.05);
    assert.equal(host.reports.length, 1);
    const [report] = host.reports;
    assert.ok(report instanceof MeshError && report.code === 'ERR_MESH_SILENT');
    assert.match(report.message, /past three quarters of its life.*does the program run that renews them/);
    const after = write(issue());
    assert.equal(leafOf(await next).fingerprint, leafOf(after).fingerprint);
  });

  it('tells it at once of files that are old already', async () => {
    write(issue({ notBefore: clock.now() - HOUR, notAfter: clock.now() + HOUR / 10 }));
    const one = watch();
    await one.next();
    void one.next().catch(() => {});
    await settle();
    await clock.advance(0);
    assert.equal(host.reports.length, 1);
  });

  it('tells a pipe from a file, and never waits for it', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'meshcert-files-'));
    try {
      host.readFiles = (paths, signal) => fileTexts(paths, { clock: host.clock, below: ANY }, signal);
      const { execFileSync } = await import('node:child_process');
      execFileSync('mkfifo', [join(dir, 'tls.key')]);
      await writeFile(join(dir, 'tls.crt'), formatCertificates(issue().chain));
      await refused(watch({ directory: dir }), 'ERR_MESH_UNAVAILABLE', /tls\.key, .*cannot be read/);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it('yields no torn pair of a program that rewrites its files a hundred times', async () => {
    host.readFiles = (paths, signal) => fileTexts(paths, { clock: host.clock, below: ANY }, signal);
    for (const manner of ['in-place', 'renamed', 'swapped', 'credential-bundle'] as const) {
      const writer = await FileWriter.start({ clock, manner, issue });
      const one = watch(writer.config);
      const writing = (async () => {
        for (let round = 0; round < 100; round++) await writer.rotate();
      })();
      try {
        for (;;) {
          const identity = await one.next();
          assert.equal(leafOf(identity).publicKeyFingerprint, identity.key.publicKeyFingerprint);
          if (leafOf(identity).fingerprint === leafOf(writer.identity).fingerprint) break;
        }
        await writing;
      } finally {
        await one.end();
        await writer.stop();
      }
    }
    assert.deepEqual(host.reports, []);
  });

  it('is checked by reading the files once', async () => {
    write(issue());
    const [found] = await examined(open());
    assert.match(found?.message ?? '', /hold spiffe:.* until .* under 1 root/);
    assert.deepEqual(brief(await examined(open(), { here: false })), ['file-read skipped']);
    host.setFile(KEY, issue().key.toPem());
    const [bad] = await examined(open());
    assert.match(bad?.message ?? '', /with another key/);
  });
});

class Watched {
  seen = 0;
  readonly #values: AsyncIterator<Identity>;
  readonly #stop = new AbortController();

  constructor(source: Source, signal: AbortSignal) {
    this.#values = source.watch(AbortSignal.any([signal, this.#stop.signal]))[Symbol.asyncIterator]();
  }

  async next(): Promise<Identity> {
    const { done, value } = await this.#values.next();
    assert.ok(!done, 'the stream ended');
    this.seen++;
    return value;
  }

  async end(): Promise<void> {
    this.#stop.abort(new Error('enough'));
    await this.#values.next().catch(() => {});
  }
}
