import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { adapters } from '../../adapters/index.ts';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { gateways } from '../../src/gateways.ts';
import { connect } from '../../src/kube/client.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { AgentProcess } from './agent-process.ts';
import type { Attack, AttackWorld } from './attacks.ts';
import { pushOf, sdsPeer } from './sds-peer.ts';

export interface SiegeOptions {
  readonly bundle: string;
  readonly attacks: readonly Attack[];
  /** Rotations of the victim that must happen after all attacks have begun and have had their outcome. */
  readonly rotations: number;
  /** Limit of the wait for an outcome. */
  readonly patienceMs: number;
}

export interface SiegeResult {
  readonly survived: boolean;
  readonly stderr: string;
  /** Of the process, MiB by the kernel; undefined where it does not say. */
  readonly peakMiB: number | undefined;
  readonly cpuSeconds: number | undefined;
  readonly probes: AgentProcess['probes'];
  /** Leaves of the victim that were published during the attacks. */
  readonly rotations: number;
  /** What did not happen in time: an outcome, a rotation. */
  readonly missing: readonly string[];
  readonly lines: readonly object[];
}

const NAMESPACE = 'emissary';
const VICTIM_PUSHES_MS = 1000;
const LOOK_MS = 100;

/** Runs the bundle with one good MeshCertificate, which rotates each second, under these attacks. */
export async function siege(options: SiegeOptions): Promise<SiegeResult> {
  const directory = await mkdtemp(join(tmpdir(), 'meshcert-siege-'));
  const stack = new Stack();
  try {
    return await run(options, directory, stack);
  } finally {
    await stack.disposeAsync();
    await rm(directory, { recursive: true, force: true });
  }
}

async function run(options: SiegeOptions, directory: string, stack: Stack): Promise<SiegeResult> {
  const linkerdCa = SandboxCa.root();
  const api = await startKubeApi({
    namespaces: [NAMESPACE, 'linkerd'],
    objects: [laxDefinition(), linkerdRoots(linkerdCa), ACCOUNT, ...ambassadorDefinitions()],
  });
  stack.defer(() => api.stop());
  const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
  stack.defer(() => kube.close());
  await api.writeKubeconfig(join(directory, 'kubeconfig'));
  await writeFile(join(directory, 'token'), tokenOfNoValue());

  const statuses = new Map<string, string>();
  let leaves = 0;
  const stop = new AbortController();
  stack.defer(() => stop.abort(new Error('over')));
  const follow = async (plural: string, apiVersion: string, kind: string, seen: (object: KubeObject) => void) => {
    const resource = { apiVersion, kind, plural, namespaced: true } as never;
    const { items, resourceVersion } = await kube.list(resource, { namespace: NAMESPACE }, stop.signal);
    items.forEach(seen);
    for await (const { object } of kube.watch(resource, { namespace: NAMESPACE, resourceVersion }, stop.signal))
      seen(object);
  };
  const watches = [
    follow('meshcertificates', 'meshcert.dev/v1alpha1', 'MeshCertificate', ({ metadata, status }) => {
      statuses.set(metadata.name, JSON.stringify(status ?? {}));
    }),
    follow('secrets', 'v1', 'Secret', ({ metadata }) => {
      if (metadata.name === 'victim-identity') leaves += 1;
    }),
  ];
  for (const watch of watches) watch.catch(() => {});

  const victim = SandboxCa.root();
  const socket = join(directory, 'victim.sock');
  stack.use(
    await sdsPeer(socket, async function* (signal) {
      for (let nonce = 1; !signal.aborted; nonce++) {
        yield pushOf(victim, [victim.root], `${nonce}`);
        await sleep(VICTIM_PUSHES_MS, undefined, { signal });
      }
    }),
  );
  const put = (name: string, spec: object) =>
    api.put({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name, namespace: NAMESPACE },
      spec,
    });
  const map = (name: string, address: string) =>
    api.put({
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'Mapping',
      metadata: { name, namespace: NAMESPACE, labels: { mesh: name } },
      spec: { hostname: '*', prefix: `/${name}/`, service: `https://${address}` },
    });
  put('victim', { istio: { sds: { socket } } });

  const agent = stack.use(
    new AgentProcess(options.bundle, [
      'agent',
      ...['--kubeconfig', join(directory, 'kubeconfig'), '-n', NAMESPACE, '--observe', 'names'],
      ...['--no-leader-elect', '--listen', '127.0.0.1:0', '--files-below', `${directory},/dev`],
    ]),
  );
  const missing: string[] = [];
  const until = async (what: string, done: () => boolean) => {
    const end = performance.now() + options.patienceMs;
    while (!done()) {
      if (agent.exit || performance.now() > end) {
        missing.push(`${what}; statuses: ${JSON.stringify([...statuses]).slice(0, 4_000)}`);
        return;
      }
      await sleep(LOOK_MS);
    }
  };
  await until('the agent to listen', () => agent.url !== undefined);
  await until('the first leaf', () => leaves > 0);
  agent.startProbing();
  const says = (name: string, what: RegExp) => what.test(statuses.get(name) ?? '');
  const world: AttackWorld = {
    directory,
    linkerdCa,
    url: agent.url ?? new URL('http://127.0.0.1:9'),
    put,
    map,
    says,
    until,
  };
  await Promise.all(options.attacks.map(async (attack) => stack.use(await attack.start(world))));
  for (const { name, outcome } of options.attacks) {
    if (outcome) await until(`${name}: ${outcome.source}`, () => says(name, outcome));
  }
  const before = leaves;
  await until(`${options.rotations} rotations`, () => leaves >= before + options.rotations);
  agent.probes.goodRow = 0;
  await until('three probes in a row that are answered within a second', () => agent.probes.goodRow >= 3);
  const { probes, stderr, lines, exit } = agent;
  const [peakMiB, cpuSeconds] = await Promise.all([agent.peakMiB(), agent.cpuSeconds()]);
  return {
    survived: exit === undefined,
    stderr,
    peakMiB,
    cpuSeconds,
    probes: { ...probes },
    rotations: leaves - before,
    missing,
    lines,
  };
}

/** Node has this only from 24 on. */
class Stack {
  readonly #ends: (() => unknown)[] = [];

  defer(end: () => unknown): void {
    this.#ends.push(end);
  }

  use<T extends AsyncDisposable>(one: T): T {
    this.defer(() => one[Symbol.asyncDispose]());
    return one;
  }

  async disposeAsync(): Promise<void> {
    for (const end of this.#ends.reverse()) await end();
  }
}

/** Like that of an older release, which was less strict. */
function laxDefinition(): object {
  const definition = structuredClone(customResourceDefinition(adapters, gateways)) as unknown as Definition;
  for (const { schema } of definition.spec.versions) {
    schema.openAPIV3Schema.properties.spec = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
  }
  return definition;
}

interface Definition {
  spec: { versions: { schema: { openAPIV3Schema: { properties: Record<string, object> } } }[] };
}

/** That of the token: whether it opens the API is only known of an account that exists. */
const ACCOUNT = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'emissary', namespace: NAMESPACE } };

const linkerdRoots = (ca: SandboxCa): object => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'linkerd-identity-trust-roots', namespace: 'linkerd' },
  data: { 'ca-bundle.crt': ca.root.pem },
});

/** In the form of a ServiceAccount's token, but signed by nobody. */
function tokenOfNoValue(): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = {
    sub: 'system:serviceaccount:emissary:emissary',
    aud: ['istio-ca', 'identity.l5d.io'],
    exp: Math.floor(Date.now() / 1000) + 3600,
  };
  return `${part({ alg: 'RS256' })}.${part(claims)}.AAAA`;
}
