import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { spiffe } from '../../adapters/spiffe/adapter.ts';
import { systemClock } from '../../src/async/clock.ts';
import type { Source } from '../../src/mesh/adapter.ts';
import { adapterContract } from '../contract/adapter-contract.ts';
import { RecordingHost } from '../support/recording-host.ts';
import { isPublished, lastError } from './parts/agent-process.ts';
import { drillCluster } from './parts/drill-cluster.ts';
import { eventually } from './parts/eventually.ts';
import { watchPair } from './parts/pair-watch.ts';
import { type Spire, type SpireOptions, type SpireVersion, startSpire } from './servers/spire.ts';

const MINUTE = 60_000;
/** Renewed after half of it; the agent looks each second. */
const LEAF_SECONDS = 60;
const VERSIONS: readonly (readonly [SpireVersion, SpireOptions])[] = [
  ['pinned', {}],
  ['next', { version: 'next', agent: { disable_sds_api: true } }],
];

for (const [version, options] of VERSIONS) {
  describe(`the Workload API of SPIRE, ${version}`, () => {
    let spire: Spire;
    let id: string;
    before(async () => {
      spire = await startSpire(options);
      id = await spire.createEntry('/gateway', { ttlSeconds: 20 });
      await known();
    });
    after(() => spire?.stop());

    /** Resolves once the agent has learnt of the entry. */
    const known = () =>
      eventually(
        'the entry',
        async () => {
          await using source = spiffe.open(
            spiffe.config.parse({ socket: spire.socket }),
            new RecordingHost(systemClock),
          );
          for await (const identity of (source as Source).watch(AbortSignal.timeout(MINUTE))) return identity.id === id;
          return false;
        },
        spire.log,
      );

    adapterContract(
      'the spiffe adapter',
      async () => ({
        adapter: spiffe,
        config: { socket: spire.socket, id },
        outage: async (on) => {
          await spire.agentOutage(on);
          if (!on) await known();
        },
        // It rotates by itself within ten seconds.
        rotate: () => {},
        stop: () => {},
      }),
      { timeoutMs: 2 * MINUTE },
    );
  });
}

describe('an agent on the Workload API of SPIRE', { concurrency: true }, () => {
  const cluster = drillCluster({ pinned: [], next: [], several: [] });
  const { table } = cluster;
  const start = (namespace: string, config: object) => cluster.start(namespace, document(namespace, config));

  for (const [version, options] of VERSIONS) {
    it(`publishes what SPIRE (${version}) issues through the loss of its entry, its server and its authority`, async () => {
      await using spire = await startSpire(options);
      await using pair = watchPair(cluster.kube, { namespace: version, identity: 'mesh-identity', ca: 'mesh-ca' });
      await using agent = await start(version, { socket: spire.socket });
      const log = () => `${agent.log().slice(-6_000)}\n${spire.log().slice(-3_000)}`;
      const leaves = (count: number, what: string) =>
        pair
          .until(() => pair.leaves.length >= count, 2 * MINUTE, what)
          .catch((error) => {
            throw new Error(`${error.message}\n${log()}`);
          });

      await eventually('the denial', async () => (await lastError(agent)) === 'ERR_MESH_DENIED', log);
      assert.equal(pair.leaves.length, 0);
      const id = await spire.createEntry('/gateway', { ttlSeconds: LEAF_SECONDS });
      await leaves(1, 'the first SVID');
      await leaves(2, 'a rotation');
      await eventually('no failure', async () => (await lastError(agent)) === undefined, log);

      await spire.deleteEntry(id);
      await eventually(
        'the denial of a deleted entry',
        async () => (await lastError(agent)) === 'ERR_MESH_DENIED',
        log,
      );
      const denied = pair.leaves.length;
      await spire.createEntry('/gateway', { ttlSeconds: LEAF_SECONDS });
      await leaves(denied + 1, 'an SVID by the new entry');
      await eventually('no failure', async () => (await lastError(agent)) === undefined, log);

      await spire.server.kill('SIGKILL');
      const known = pair.leaves.length;
      const { versions } = pair;
      await eventually('the report', async () => (await lastError(agent)) === 'ERR_MESH_SILENT', log, 2 * MINUTE);
      assert.deepEqual([pair.leaves.length, pair.versions], [known, versions], 'nothing was written meanwhile');
      await spire.server.restart();
      const old = pair.leaves.at(-1);
      await leaves(known + 1, 'an SVID after the server was back');
      const leftMs = (old?.notAfter ?? 0) - Date.now();
      await eventually('no failure', async () => (await lastError(agent)) === undefined, log);

      const issuer = () => pair.leaves.at(-1)?.authorityKeyId;
      const before = issuer();
      const prepared = await authority(spire, ['prepare'], 'prepared');
      await eventually('both roots', async () => pair.bundles.at(-1)?.length === 2, log);
      assert.equal(issuer(), before);
      await spire.cli(['localauthority', 'x509', 'activate', '-authorityID', prepared]);
      const { old: tainted } = await authorities(spire);
      await spire.cli(['localauthority', 'x509', 'taint', '-authorityID', tainted ?? '']);
      await pair
        .until(() => issuer() !== before, 2 * MINUTE, 'a leaf of the new authority')
        .catch((error) => {
          throw new Error(`${error.message}\n${log()}`);
        });
      await spire.cli(['localauthority', 'x509', 'revoke', '-authorityID', tainted ?? '']);
      await eventually('it in force', () => isPublished(agent), log);

      assert.deepEqual(pair.violations, []);
      assert.deepEqual(new Set(pair.leaves.flatMap(({ names }) => names.uris)), new Set([id]));
      table.add(
        `SPIRE ${version}: entry deleted and back, server killed for ${LEAF_SECONDS * 0.75} s of a leaf's ${LEAF_SECONDS} s, authority prepared, activated, tainted, revoked`,
        'the old pair stays, the state says why, and each new one is complete',
        `${pair.leaves.length} leaves, ${pair.bundles.length} bundles, 0 violations; renewed ${(leftMs / 1000).toFixed(0)} s before the old leaf's end`,
      );
    });
  }

  it('refuses to choose among several SVIDs, lists them, and takes the one that id or hint names', async () => {
    const namespace = 'several';
    await using spire = await startSpire({ version: 'next', agent: { disable_sds_api: true } });
    const [first, second] = [
      await spire.createEntry('/first', { hint: 'edge' }),
      await spire.createEntry('/second', { hint: 'inner' }),
    ];
    // SPIRE's agent learns of entries once a second, and may offer the first alone for that long.
    await eventually('both SVIDs', async () => {
      const offered = await spire.offered();
      return offered.includes(first) && offered.includes(second);
    });
    await using agent = await start(namespace, { socket: spire.socket });
    const log = () => `${agent.log().slice(-6_000)}\n${spire.log().slice(-3_000)}`;
    const message = async () => (await agent.statuses())[0]?.status.lastError?.message ?? '';
    await eventually(
      'the refusal',
      async () => {
        const text = await message();
        return text.includes(`${first} (hint "edge")`) && text.includes(`${second} (hint "inner")`);
      },
      log,
    );
    assert.equal(await lastError(agent), 'ERR_MESH_CONFIG');
    const published = async () => (await agent.statuses())[0]?.status.id;
    await agent.configure(document(namespace, { socket: spire.socket, hint: 'inner' }));
    await eventually('the one of the hint', async () => (await published()) === second, log);
    // What is published is another identity than the configuration now names: it is replaced, since the user says so.
    await agent.configure(document(namespace, { socket: spire.socket, id: first }));
    await eventually('the one of the ID', async () => (await published()) === first, log);
    await agent.configure(document(namespace, { socket: spire.socket, id: `${first}/none` }));
    await eventually('the refusal of another', async () => (await message()).includes('offers no identity'), log);
  });
});

function document(namespace: string, config: object): string {
  return `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: ${namespace}}
spec:
  spiffe: ${JSON.stringify(config)}
  trust: {hold: 5s, retain: 1m}
`;
}

/** Authority IDs by their state. */
async function authorities(spire: Spire): Promise<{ active?: string; prepared?: string; old?: string }> {
  const shown = JSON.parse(await spire.cli(['localauthority', 'x509', 'show', '-output', 'json'])) as Record<
    string,
    { authority_id?: string } | null
  >;
  return Object.fromEntries(Object.entries(shown).map(([state, one]) => [state, one?.authority_id]));
}

async function authority(spire: Spire, args: readonly string[], state: 'prepared'): Promise<string> {
  await spire.cli(['localauthority', 'x509', ...args]);
  return (await authorities(spire))[state] ?? '';
}
