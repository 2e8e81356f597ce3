import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { decodeData } from '../../../src/gateway/publication.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { RawSds } from '../../contract/sds-client.ts';
import { peer } from '../../peers/build.ts';
import { Daemon } from '../../peers/servers/process.ts';
import { startSpire } from '../../peers/servers/spire.ts';
import { cpuOf, rssOf, startBundle, untilPublished } from '../parts/bundle.ts';
import { preciseNow } from '../parts/part.ts';
import { type Count, missing, type Row, row, type Scenario } from '../scenario.ts';

/** SPIRE renews at about half of it. */
const LEAF_SECONDS = 20;

interface Sighting {
  readonly leaf: string;
  readonly at: number;
}

export const spiffeHelper: Scenario = {
  id: 'spiffe-helper',
  title: 'One agent for N identities, compared with N spiffe-helpers',
  same: 'The same SPIRE agent pushes each new leaf to both sides at the same time: to N spiffe-helpers, each of which writes key, leaf and bundle to three files, and to one meshcert (the bundle) with N MeshCertificates, half of them by the Workload API and half by SDS, which writes N Secrets to the sandbox’s API server. A third SDS client records when a leaf was pushed. Difference: files are local, Secrets go through an API server. The cost of the API server is not counted, because it runs anyway.',
  async run({ sizes, fleets, say }) {
    const helper = await peer('spiffe-helper').catch(missing);
    await using spire = await startSpire().catch(missing);
    const id = await spire.createEntry('/gateway', { ttlSeconds: LEAF_SECONDS });
    for (let known = false; !known; ) {
      const asked = new RawSds(spire.socket);
      known = (await asked.fetch([id]).catch(() => undefined)) !== undefined;
      asked.close();
      if (!known) await new Promise((resolve) => setTimeout(resolve, 200));
    }
    const world = await fleets.world('sandbox');
    const rows: Row[] = [];
    const counts: Count[] = [];
    const notes: string[] = [];
    for (const n of sizes.helpers) {
      say(`${n} identities for ${sizes.helperSeconds} s`);
      const namespace = `spire-${n}`;
      await world.populate(namespace, 0);
      const config = join(world.dir, `${namespace}.yaml`);
      const documents = Array.from({ length: n }, (_, at) =>
        stringify({
          apiVersion: 'meshcert.dev/v1alpha1',
          kind: 'MeshCertificate',
          metadata: { name: `s-${at}`, namespace },
          spec: {
            ...(at % 2 === 0
              ? { spiffe: { socket: spire.socket, id } }
              : { istio: { trustDomain: spire.trustDomain, id, sds: { socket: spire.socket } } }),
            tlsContext: { enabled: false },
          },
        }),
      );
      await writeFile(config, documents.join('---\n'));
      const helpers: Daemon[] = [];
      const dirs: string[] = [];
      try {
        await using ours = await startBundle(world.kubeconfigFile, [
          '--config',
          config,
          '-n',
          namespace,
          '--no-leader-elect',
          '--observe',
          'labels',
        ]);
        await untilPublished(ours, n);
        for (let at = 0; at < n; at++) {
          const dir = join(spire.dir, `${namespace}-${at}`);
          await mkdir(dir);
          const conf = join(dir, 'helper.conf');
          await writeFile(conf, helperConfig(spire.socket, dir));
          dirs.push(dir);
          const ready = async () => (await readFile(join(dir, 'svid_key.pem'))).length > 0;
          helpers.push(
            await Daemon.start({ name: 'spiffe-helper', file: helper, args: ['-config', conf], dir, ready }),
          );
        }
        const stop = new AbortController();
        const pushed = notePushes(spire.socket, id);
        const secrets = noteSecrets(world.kube, namespace, stop.signal);
        const files = noteFiles(dirs[0] ?? '', stop.signal);
        const pids = helpers.map(({ pid }) => pid);
        const cpu = async () =>
          [await cpuOf(ours.pid), (await Promise.all(pids.map(cpuOf))).reduce((a, b) => a + b, 0)] as const;
        const before = await cpu();
        await new Promise((resolve) => setTimeout(resolve, sizes.helperSeconds * 1000));
        const after = await cpu();
        stop.abort(new Error('over'));
        const rotations = Math.max(1, pushed.seen.length - 1);
        const theirRss = (await Promise.all(pids.map(rssOf))).reduce((a, b) => a + b, 0);
        pushed.close();
        rows.push(
          row(`${n}: RSS in total`, 'MiB', [(await rssOf(ours.pid)) / 2 ** 20], [theirRss / 2 ** 20]),
          row(
            `${n}: CPU for 1,000 rotations, waiting included`,
            's',
            [(after[0] - before[0]) / (rotations * n)],
            [(after[1] - before[1]) / (rotations * n)],
          ),
        );
        const own = delays(pushed.seen, secrets.seen);
        const other = delays(pushed.seen, files.seen);
        if (own.length > 0 && other.length > 0)
          rows.push(row(`${n}: push to a consistent pair, first identity`, 'ms', own, other.slice(0, own.length)));
        counts.push({
          what: `${n}: torn pairs in ${secrets.looks} versions of Secrets`,
          value: secrets.torn,
          limit: 0,
        });
        notes.push(
          `${n}: spiffe-helper: ${files.torn} torn pairs in ${files.looks} reads of its files, over ${rotations} rotations`,
        );
      } finally {
        await Promise.all(helpers.map((one) => one.stop()));
      }
    }
    return { rows, counts, notes };
  },
};

const helperConfig = (socket: string, dir: string): string => `agent_address = "${socket}"
cmd = ""
cmd_args = ""
cert_dir = "${dir}"
daemon_mode = true
svid_file_name = "svid.pem"
svid_key_file_name = "svid_key.pem"
svid_bundle_file_name = "svid_bundle.pem"
`;

/** From each push to its first sighting. */
function delays(pushed: readonly Sighting[], seen: readonly Sighting[]): number[] {
  return pushed.slice(1).flatMap(({ leaf, at }) => {
    const found = seen.find((one) => one.leaf === leaf);
    return found ? [found.at - at] : [];
  });
}

function notePushes(socket: string, id: string) {
  const seen: Sighting[] = [];
  const sds = new RawSds(socket);
  const follow = async () => {
    sds.send([id]);
    for (;;) {
      const answer = await sds.next();
      const at = preciseNow();
      const [leaf] = answer.certificates(id);
      if (leaf && leaf.fingerprint !== seen.at(-1)?.leaf) seen.push({ leaf: leaf.fingerprint, at });
      sds.accept([id], answer);
    }
  };
  follow().catch(() => {});
  return { seen, close: () => sds.close() };
}

interface Looks {
  readonly seen: Sighting[];
  looks: number;
  torn: number;
}

function note(looks: Looks, certificate: string, key: string): void {
  looks.looks += 1;
  try {
    const leaf = new X509Certificate(certificate);
    if (!leaf.checkPrivateKey(createPrivateKey(key))) looks.torn += 1;
    else {
      const name = leaf.fingerprint256.replaceAll(':', '').toLowerCase();
      if (name !== looks.seen.at(-1)?.leaf) looks.seen.push({ leaf: name, at: preciseNow() });
    }
  } catch {
    looks.torn += 1;
  }
}

function noteSecrets(kube: Kube, namespace: string, signal: AbortSignal): Looks {
  const looks: Looks = { seen: [], looks: 0, torn: 0 };
  const follow = async () => {
    const named = { namespace, fieldSelector: 'metadata.name=s-0-identity' };
    const { resourceVersion } = await kube.list(RESOURCES.secrets, named, signal);
    const selection = { ...named, resourceVersion };
    for await (const { type, object } of kube.watch(RESOURCES.secrets, selection, signal)) {
      if (type !== 'ADDED' && type !== 'MODIFIED') continue;
      const data = decodeData(object);
      note(looks, data['tls.crt'] ?? '', data['tls.key'] ?? '');
    }
  };
  follow().catch(() => {});
  return looks;
}

/** Reads as a server that reloads would, as often as it can. */
function noteFiles(dir: string, signal: AbortSignal): Looks {
  const looks: Looks = { seen: [], looks: 0, torn: 0 };
  const follow = async () => {
    while (!signal.aborted) {
      const [certificate, key] = await Promise.all(
        ['svid.pem', 'svid_key.pem'].map((name) => readFile(join(dir, name), 'utf8')),
      );
      note(looks, certificate ?? '', key ?? '');
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  follow().catch(() => {});
  return looks;
}
