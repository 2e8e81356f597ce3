import { readFileSync, watch } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { decodeData } from '../../../src/gateway/publication.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { parseCertificates } from '../../../src/pki/certificate.ts';
import { peer } from '../../peers/build.ts';
import { type Consul, startConsul } from '../../peers/servers/consul.ts';
import { rotateRoot } from '../../peers/servers/consul-levers.ts';
import { Daemon } from '../../peers/servers/process.ts';
import { BUNDLE_AGENT, cpuOf, rssOf, startBundle, untilPublished } from '../parts/bundle.ts';
import { PairHistory } from '../parts/pair-history.ts';
import { preciseNow } from '../parts/part.ts';
import { type Count, missing, type Row, row, type Scenario } from '../scenario.ts';
import { writesIn } from '../tally.ts';

const SERVICE = 'gateway';
const NAMESPACE = 'consul';
const DEADLINE_MS = 60_000;
/**
 * meshcert follows Consul's advice for blocking queries, two at once and then one each 15 s, and spreads the renewals
 * that a change of roots makes due over 30 s. Slower changes than these do not affect each other.
 */
const APART_MS = 31_000;
const SOON_MS = 500;
const SOON_ROUNDS = 3;
const FILES = { 'cert.pem': 'certificate', 'cert.key': 'key', 'ca.crt': 'roots' } as const;

export const consulTemplate: Scenario = {
  id: 'consul-template',
  title: 'Leaf and roots of Consul change together',
  same: 'One real Consul agent with one service. Both sides receive the same leaf and the same roots by the same blocking queries. consul-template writes `cert.pem`, `cert.key` and `ca.crt` from three templates, as in its examples; the shipped bundle writes the identity Secret and the CA Secret. Each round starts 31 s after the last, gives the CA another root, and requests a leaf under it at once. The time is from the response of Consul to the change until the new leaf, its key and the new root can be read together; it is negative if that happens before Consul responds. Files are read after each rename, Secrets at each version of a watch; a moment is one version of all files or Secrets, however short. Without cross-signing, `trust.hold` is 0 here, because consul-template does not wait; by default meshcert holds back such a leaf for 10 minutes. Difference: files are local, Secrets go through an API server. The cost of the API server is not counted, because it runs anyway.',
  async run({ sizes, fleets, say }) {
    const file = await peer('consul-template').catch(missing);
    await using consul = await startConsul({ acl: false }).catch(missing);
    const world = await fleets.best;
    await world.populate(NAMESPACE, 0);
    const config = join(world.dir, 'consul.yaml');
    await writeFile(config, stringify(document(consul)));
    const args = ['--config', config, '-n', NAMESPACE, '--no-leader-elect'];
    await using ours = await startBundle(world.kubeconfigFile, args);
    await untilPublished(ours, 1);
    const dir = join(consul.dir, 'rendered');
    await mkdir(dir);
    const theirs = await startTemplate(file, consul, dir);
    const [own, alone, other] = [new PairHistory(), new PairHistory(), new PairHistory()];
    const stop = new AbortController();
    try {
      followSecrets(world.kube, own, alone, stop.signal);
      followFiles(dir, other, stop.signal);
      await Promise.all([known(consul, own), known(consul, other)]);
      await world.spent(BUNDLE_AGENT);
      const cpu = () => Promise.all([cpuOf(ours.pid), cpuOf(theirs.pid)]);
      const before = await cpu();
      const change = async (crossSign: boolean, pauseMs: number): Promise<readonly [number, number]> => {
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
        await rotateRoot(consul, crossSign);
        const changed = preciseNow();
        const { leaf, root } = await current(consul);
        const stood = (history: PairHistory) => history.stood(leaf, root, DEADLINE_MS);
        const [ownAt, otherAt] = await Promise.all([stood(own), stood(other)]);
        return [ownAt - changed, otherAt - changed];
      };
      say(`${sizes.consulRounds} changes of root and leaf with cross-signing, as many without`);
      const bridged: (readonly [number, number])[] = [];
      const forced: (readonly [number, number])[] = [];
      for (let round = 0; round < sizes.consulRounds; round++) {
        bridged.push(await change(true, APART_MS));
        forced.push(await change(false, APART_MS));
      }
      const after = await cpu();
      const soon: (readonly [number, number])[] = [];
      for (let round = 0; round < SOON_ROUNDS; round++) soon.push(await change(true, SOON_MS));
      const rotations = 2 * sizes.consulRounds;
      const perThousand = (at: 0 | 1) => [(after[at] - before[at]) / rotations];
      const rows: Row[] = [
        compare('change to visible, new root cross-signed by the old', bridged),
        compare('change to visible, not cross-signed', forced),
        compare(`change to visible, ${SOON_MS / 1000} s after the last one: meshcert waits for its turn to ask`, soon),
        row('CPU for 1,000 changes, 31 s apart, waiting included', 's', perThousand(0), perThousand(1)),
        row('RSS', 'MiB', [(await rssOf(ours.pid)) / 2 ** 20], [(await rssOf(theirs.pid)) / 2 ** 20]),
      ];
      const writes = writesIn(await world.spent(BUNDLE_AGENT));
      const counts: Count[] = [
        { what: 'changes', value: rotations + SOON_ROUNDS, limit: undefined },
        {
          what: 'meshcert: moments at which leaf and key did not match',
          value: own.wrongKeys + alone.wrongKeys,
          limit: 0,
        },
        {
          what: 'meshcert: moments at which the leaf did not verify under the roots',
          value: own.unverified + alone.unverified,
          limit: 0,
        },
        { what: 'meshcert: writes per change', value: writes / (rotations + SOON_ROUNDS), limit: 4 },
        {
          what: 'consul-template: moments at which leaf and key did not match',
          value: other.wrongKeys,
          limit: undefined,
        },
        {
          what: 'consul-template: moments at which the leaf did not verify under the roots',
          value: other.unverified,
          limit: undefined,
        },
      ];
      const notes = [
        `consul-template: ${other.wrongKeys + other.unverified} such moments among ${other.versions} versions of its files, ${other.badMs.toFixed(0)} ms in all; meshcert: none among ${own.versions} versions of its Secrets, ${world.kind}`,
      ];
      return { rows, counts, notes };
    } finally {
      stop.abort(new Error('over'));
      await theirs.stop();
    }
  },
};

const compare = (what: string, pairs: readonly (readonly [number, number])[]): Row =>
  row(
    what,
    'ms',
    pairs.map(([ours]) => ours),
    pairs.map(([, theirs]) => theirs),
  );

const document = (consul: Consul) => ({
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  metadata: { name: SERVICE, namespace: NAMESPACE },
  spec: {
    consul: { service: SERVICE, datacenter: 'dc1', http: { address: consul.url } },
    tlsContext: { enabled: false },
    trust: { hold: '0s' },
  },
});

async function startTemplate(file: string, consul: Consul, dir: string): Promise<Daemon> {
  const contents = {
    'ca.crt': '{{range caRoots}}{{.RootCertPEM}}{{end}}',
    'cert.pem': `{{with caLeaf "${SERVICE}"}}{{.CertPEM}}{{end}}`,
    'cert.key': `{{with caLeaf "${SERVICE}"}}{{.PrivateKeyPEM}}{{end}}`,
  };
  const template = Object.entries(contents).map(([name, text]) => ({ contents: text, destination: join(dir, name) }));
  const config = join(consul.dir, 'template.json');
  await writeFile(config, JSON.stringify({ consul: { address: new URL(consul.url).host }, template }));
  return Daemon.start({
    name: 'consul-template',
    file,
    args: ['-config', config, '-log-level', 'err'],
    dir: consul.dir,
    ready: async () => {
      const texts = await Promise.all(Object.keys(FILES).map((name) => readFile(join(dir, name), 'utf8')));
      return texts.every((text) => text.length > 0);
    },
  });
}

/** The current leaf and root, by fingerprint; the request makes Consul sign a leaf under a new root at once. */
async function current(consul: Consul): Promise<{ leaf: string; root: string }> {
  const { CertPEM } = await consul.api('GET', `/v1/agent/connect/ca/leaf/${SERVICE}`);
  const { ActiveRootID, Roots } = await consul.api('GET', '/v1/connect/ca/roots');
  const active = (Roots as { ID: string; RootCert: string }[]).find(({ ID }) => ID === ActiveRootID);
  const leaf = parseCertificates(CertPEM)[0]?.fingerprint ?? '';
  return { leaf, root: parseCertificates(active?.RootCert ?? '')[0]?.fingerprint ?? '' };
}

async function known(consul: Consul, history: PairHistory): Promise<void> {
  const { leaf, root } = await current(consul);
  await history.stood(leaf, root, DEADLINE_MS);
}

/** `both`: the identity under the roots of the CA Secret beside it. `alone`: under those in its own Secret. */
function followSecrets(kube: Kube, both: PairHistory, alone: PairHistory, signal: AbortSignal): void {
  const follow = async () => {
    const { items, resourceVersion } = await kube.list(RESOURCES.secrets, { namespace: NAMESPACE }, signal);
    for (const item of items) take(item);
    const selection = { namespace: NAMESPACE, resourceVersion };
    for await (const { type, object } of kube.watch(RESOURCES.secrets, selection, signal))
      if (type === 'ADDED' || type === 'MODIFIED') take(object);
  };
  const take = (object: Parameters<typeof decodeData>[0]) => {
    const { 'tls.crt': certificate = '', 'tls.key': key = '', 'ca.crt': roots = '' } = decodeData(object);
    const { name } = object.metadata;
    const at = preciseNow();
    if (name === `${SERVICE}-ca`) both.wrote({ roots }, at);
    if (name !== `${SERVICE}-identity`) return;
    both.wrote({ certificate, key }, at);
    alone.wrote({ certificate, key, roots }, at);
  };
  follow().catch(() => {});
}

/** A rename is reported in order among all events of the directory; what is read is the file that it put there. */
function followFiles(dir: string, history: PairHistory, signal: AbortSignal): void {
  const take = (name: string | null) => {
    const part = FILES[name as keyof typeof FILES];
    if (part) history.wrote({ [part]: readFileSync(join(dir, name ?? ''), 'utf8') }, preciseNow());
  };
  watch(dir, { signal }, (_, name) => take(name)).on('error', () => {});
  for (const name of Object.keys(FILES)) take(name);
}
