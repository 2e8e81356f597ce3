import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { RawSds } from '../contract/sds-client.ts';
import { peer } from './build.ts';
import { lastError } from './parts/agent-process.ts';
import { drillCluster } from './parts/drill-cluster.ts';
import { eventually } from './parts/eventually.ts';
import { watchPair } from './parts/pair-watch.ts';
import { startIstiod } from './servers/istiod.ts';
import { startPilotAgent } from './servers/pilot-agent.ts';
import { Daemon } from './servers/process.ts';
import { startSpire } from './servers/spire.ts';

const MINUTE = 60_000;
/** SPIRE renews at half of it. */
const HELPER_LEAF_SECONDS = 20;
const LEAVES = 4;

describe('certificates in files that real programs write', { concurrency: true }, () => {
  const cluster = drillCluster({ helper: [], pilot: ['gateway'], 'istio-system': [] });
  const { table } = cluster;
  const start = (namespace: string, config: object) =>
    cluster.start(
      namespace,
      `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: ${namespace}}
spec:
  file: ${JSON.stringify(config)}
  trust: {hold: 5s}
`,
    );

  it('are published as whole pairs while spiffe-helper writes them one after the other', async () => {
    const namespace = 'helper';
    await using spire = await startSpire({ version: 'next' });
    const id = await spire.createEntry('/gateway', { ttlSeconds: HELPER_LEAF_SECONDS });
    const directory = join(spire.dir, 'certs');
    await mkdir(directory);
    const config = join(spire.dir, 'helper.conf');
    await writeFile(config, helperConfig(spire.socket, directory));
    const helper = await Daemon.start({
      name: 'spiffe-helper',
      file: await peer('spiffe-helper'),
      args: ['-config', config],
      dir: spire.dir,
      ready: async () => (await readFile(join(directory, 'svid_key.pem'))).length > 0,
    });
    const stop = new AbortController();
    const reading = countTorn(directory, stop.signal);
    try {
      await using pair = watchPair(cluster.kube, { namespace, identity: 'mesh-identity', ca: 'mesh-ca' });
      await using agent = await start(namespace, { directory, layout: 'spiffe-helper' });
      await pair
        .until(() => pair.leaves.length >= LEAVES, 3 * MINUTE, `${LEAVES} leaves`)
        .catch((error) => {
          throw new Error(`${error.message}\n${agent.log().slice(-5_000)}\n${helper.log()}`);
        });
      assert.deepEqual(pair.violations, []);
      assert.deepEqual(new Set(pair.leaves.flatMap(({ names }) => names.uris)), new Set([id]));
      stop.abort();
      const { torn, reads } = await reading;
      table.add(
        'spiffe-helper writes certificate, key and bundle one after the other',
        'no torn pair is ever published',
        `${pair.leaves.length} leaves, 0 violations; ${torn} of ${reads} plain reads of the files were torn`,
      );
    } finally {
      stop.abort();
      await helper.stop();
    }
  });

  it('are published as whole pairs from OUTPUT_CERTS of pilot-agent, and reported when it stops to write', async () => {
    const namespace = 'pilot';
    await using istiod = await startIstiod({ apiserver: cluster.apiserver });
    await using pilot = await startPilotAgent({
      ...{ apiserver: cluster.apiserver, istiod, namespace, serviceAccount: 'gateway' },
      // It renews a fifth of a minute after each issue.
      env: { SECRET_TTL: '60s', SECRET_GRACE_PERIOD_RATIO: '0.8', OUTPUT_CERTS: 'certs' },
    });
    const directory = join(pilot.dir, 'certs');
    // It does not create the directory, and writes at its next renewal.
    await mkdir(directory);
    const subscriber = new RawSds(pilot.socket);
    const stop = new AbortController();
    // It writes only while somebody subscribes.
    const following = follow(subscriber);
    const reading = countTorn(directory, stop.signal, ['cert-chain.pem', 'key.pem']);
    try {
      await using pair = watchPair(cluster.kube, { namespace, identity: 'mesh-identity', ca: 'mesh-ca' });
      await using agent = await start(namespace, { directory, layout: 'istio' });
      const leaves = (count: number, what: string) =>
        pair
          .until(() => pair.leaves.length >= count, 3 * MINUTE, what)
          .catch((error) => {
            throw new Error(`${error.message}\n${agent.log().slice(-5_000)}\n${pilot.log().slice(-3_000)}`);
          });
      await leaves(LEAVES, `${LEAVES} leaves`);
      await pilot.kill('SIGSTOP');
      const known = pair.leaves.length;
      await eventually('the report', async () => (await lastError(agent)) === 'ERR_MESH_SILENT', agent.log, 2 * MINUTE);
      const leftMs = (pair.leaves.at(-1)?.notAfter ?? 0) - Date.now();
      assert.ok(leftMs > 0, 'it was reported before the end of the leaf');
      await pilot.kill('SIGCONT');
      await leaves(known + 1, 'a leaf after it was back');
      await eventually('the end of the failure', async () => (await lastError(agent)) === undefined, agent.log);
      assert.deepEqual(pair.violations, []);
      stop.abort();
      const { torn, reads } = await reading;
      table.add(
        'pilot-agent writes OUTPUT_CERTS every few seconds, then is frozen',
        'no torn pair is ever published; the delay is reported before the leaf ends',
        `${pair.leaves.length} leaves, 0 violations; reported ${Math.round(leftMs / 1000)} s before the end; ${torn} of ${reads} plain reads of the files were torn`,
      );
    } finally {
      stop.abort();
      subscriber.close();
      await following;
    }
  });
});

/** Ends when the subscriber is closed. */
async function follow(subscriber: RawSds): Promise<void> {
  const names = ['default', 'ROOTCA'];
  subscriber.send(names);
  try {
    for (;;) subscriber.accept(names, await subscriber.next());
  } catch {
    // Closed.
  }
}

/** How often a program that reads the files without further care gets a certificate with the key of another one. */
async function countTorn(
  directory: string,
  signal: AbortSignal,
  [certificate, key] = ['svid.pem', 'svid_key.pem'],
): Promise<{ torn: number; reads: number }> {
  let torn = 0;
  let reads = 0;
  while (!signal.aborted) {
    const [chain, secret] = await Promise.all(
      [certificate, key].map((name) => readFile(join(directory, name ?? '')).catch(() => '')),
    );
    reads += 1;
    try {
      if (!new X509Certificate(chain ?? '').checkPrivateKey(createPrivateKey(secret ?? ''))) torn += 1;
    } catch {
      torn += 1;
    }
    await delay(5);
  }
  return { torn, reads };
}

function helperConfig(socket: string, directory: string): string {
  return `agent_address = "${socket}"
cert_dir = "${directory}"
daemon_mode = true
svid_file_name = "svid.pem"
svid_key_file_name = "svid_key.pem"
svid_bundle_file_name = "svid_bundle.pem"
`;
}
