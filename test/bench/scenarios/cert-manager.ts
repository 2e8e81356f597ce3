import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import type { KubeObject } from '../../../src/objects/objects.ts';
import { PrivateKey } from '../../../src/pki/key.ts';
import { peer } from '../../peers/build.ts';
import { goModuleSource } from '../../peers/servers/go-module.ts';
import { Daemon, scratchDir } from '../../peers/servers/process.ts';
import { CREATORS, type World } from '../fleets.ts';
import { cpuOf, peakOf } from '../parts/bundle.ts';
import {
  atMost,
  type Context,
  type Findings,
  missing,
  ratioAtLeast,
  ratioAtMost,
  row,
  type Scenario,
} from '../scenario.ts';
import { inLanes } from '../statistics.ts';
import { type FirstIssues, firstIssues, hasConditions, type Reached, requestsEach, untilAll } from './first.ts';

const MODULE = 'github.com/cert-manager/cert-manager';
const ISSUERS = { apiVersion: 'cert-manager.io/v1', kind: 'Issuer', plural: 'issuers', namespaced: true };
const CERTIFICATES = {
  apiVersion: 'cert-manager.io/v1',
  kind: 'Certificate',
  plural: 'certificates',
  namespaced: true,
};
/** The prefix of the user agents of all its controllers. */
const AGENT = 'cert-manager-';
/** By mode, with the number of objects for which it holds; of fewer, the start of the process is most. */
const BUDGETS = {
  names: { count: 500, ratio: 1.5, requests: 6, cpuMs: 15, peakMiB: 150 },
  labels: { count: 2_000, ratio: 3, requests: 4.2, cpuMs: undefined, peakMiB: undefined },
};

export const certManager: Scenario = {
  id: 'cert-manager',
  title: 'First issues, compared with cert-manager',
  same: 'N objects exist, nothing is issued, and the controller starts: the shipped bundle with N MeshCertificates, then the controllers of cert-manager with N Certificates and a CA issuer, on the same API server. Both create a P-256 key, get a leaf for one SPIFFE ID, write it to a Secret and report Ready. cert-manager’s CA is a key in the process, ours is istiod’s over gRPC (sandbox, a separate process); ours also writes the trust bundle and a TLSContext, and makes a handshake with each pair. cert-manager runs without the controllers for ACME, Vault and Venafi, of which two modules cannot be had, and without leader election; its webhook and cainjector do not run.',
  async run(context) {
    const program = await peer('cert-manager').catch(missing);
    const findings: Findings[] = [];
    for (const [how, count] of context.sizes.certManager) findings.push(await compare(context, program, how, count));
    return {
      rows: findings.flatMap(({ rows }) => rows),
      counts: findings.flatMap(({ counts }) => counts),
      notes: [],
    };
  },
};

async function compare(
  { fleets, say }: Context,
  program: string,
  how: keyof typeof BUDGETS,
  count: number,
): Promise<Findings> {
  const world = await fleets.world('kube-apiserver');
  const about = `${count} with ${how}`;
  say(about);
  const ours = await firstIssues(world, `cert-manager-${count}-ours`, count, how);
  say(`${count} Certificates of cert-manager`);
  const theirs = await theirIssues(world, program, `cert-manager-${count}-theirs`, count);
  const budget = BUDGETS[how];
  const judged = <B>(one: B) => (count === budget.count ? one : undefined);
  const peak = budget.peakMiB === undefined ? ratioAtMost(1) : atMost(budget.peakMiB, `≤ ${budget.peakMiB} MiB`);
  return {
    rows: [
      row(
        `${about}: to the last Ready`,
        '/s',
        [count / ours.readySeconds],
        [count / theirs.readySeconds],
        judged(ratioAtLeast(budget.ratio)),
      ),
      row(
        `${about}: CPU of the process each`,
        'ms',
        [ours.cpuMs / count],
        [theirs.cpuMs / count],
        budget.cpuMs === undefined ? undefined : judged(atMost(budget.cpuMs, `≤ ${budget.cpuMs} ms`)),
      ),
      row(`${about}: peak RSS`, 'MiB', [ours.peak / 2 ** 20], [theirs.peak / 2 ** 20], judged(peak)),
    ],
    counts: [
      {
        what: `${about}: API requests each, without Events`,
        value: requestsEach(ours, count),
        // A start has a few more, whatever the number.
        limit: judged(budget.requests + 0.1),
      },
      {
        what: `${about}: API requests of cert-manager each, without Events`,
        value: requestsEach(theirs, count),
        limit: undefined,
      },
    ],
    notes: [],
  };
}

async function theirIssues(world: World, program: string, namespace: string, count: number): Promise<FirstIssues> {
  await installDefinitions(world);
  await world.populate(namespace, 0);
  const { secret, issuer } = authority(namespace);
  await world.kube.create(secret, { fieldManager: 'bench' });
  await world.kube.post(ISSUERS, issuer);
  await inLanes(CREATORS, count, (at) => world.kube.post(CERTIFICATES, certificate(namespace, at)));
  await world.spent(AGENT);
  const began = performance.now();
  const reached: Reached = { isPublished: isIssued, isReady: hasConditions('Ready') };
  const all = untilAll(world, namespace, count, reached, CERTIFICATES);
  const dir = scratchDir('cert-manager');
  const daemon = await Daemon.start({
    name: 'cert-manager',
    file: program,
    args: [`--kubeconfig=${world.kubeconfigFile}`, `--namespace=${namespace}`],
    dir,
    ready: async () => true,
  });
  try {
    const { secretsAt, readyAt } = await all;
    const [cpuMs, peak] = await Promise.all([cpuOf(daemon.pid), peakOf(daemon.pid)]);
    const seconds = (end: number) => (end - began) / 1000;
    const spent = await world.spent(AGENT);
    return { secretsSeconds: seconds(secretsAt), readySeconds: seconds(readyAt), cpuMs, peak, spent };
  } finally {
    await daemon.stop();
  }
}

async function installDefinitions({ kube }: World): Promise<void> {
  const directory = join(await goModuleSource('cert-manager', MODULE), 'deploy/crds');
  const files = (await readdir(directory)).filter((name) => name.endsWith('.yaml'));
  const texts = await Promise.all(files.map((name) => readFile(join(directory, name), 'utf8')));
  for (const document of texts.flatMap((text) => parseAllDocuments(text))) {
    await kube.apply(document.toJS() as KubeObject, { fieldManager: 'bench', force: true });
  }
  for (const resource of [ISSUERS, CERTIFICATES]) {
    while (!(await kube.list(resource, { namespace: 'default' }).catch(() => undefined))) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function authority(namespace: string) {
  const key = PrivateKey.generate();
  const { root } = SandboxCa.root({ key });
  return {
    secret: {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'ca', namespace },
      type: 'kubernetes.io/tls',
      stringData: { 'tls.crt': root.pem, 'tls.key': key.toPem() },
    },
    issuer: {
      ...{ apiVersion: ISSUERS.apiVersion, kind: ISSUERS.kind },
      metadata: { name: 'ca', namespace },
      spec: { ca: { secretName: 'ca' } },
    },
  };
}

const certificate = (namespace: string, at: number): KubeObject => ({
  ...{ apiVersion: CERTIFICATES.apiVersion, kind: CERTIFICATES.kind },
  metadata: { name: `gw-${at}`, namespace },
  spec: {
    secretName: `gw-${at}-tls`,
    duration: '24h',
    privateKey: { algorithm: 'ECDSA', size: 256 },
    uris: [`spiffe://cluster.local/ns/${namespace}/sa/gw-${at}`],
    issuerRef: { name: 'ca', kind: 'Issuer' },
  },
});

/** Not the Secret of the CA, nor one that holds only a new key. */
const isIssued = ({ metadata, data }: KubeObject): boolean =>
  metadata.name.endsWith('-tls') && Boolean((data as Readonly<Record<string, string>> | undefined)?.['tls.crt']);
