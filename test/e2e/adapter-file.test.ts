import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type SandboxCluster, startCluster } from '../../sandbox/cluster/cluster.ts';
import { sandboxes } from '../../sandbox/meshes.ts';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { capture } from '../../scripts/run.ts';
import { systemClock } from '../../src/async/clock.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { gateways } from '../../src/gateways.ts';
import { reflect } from '../../src/kube/reflector.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { outsideAdapter } from '../../src/mesh/outside/adapter.ts';
import { AgentProcess } from '../hostile/agent-process.ts';

const adapter = (mesh: string, members: string) => `
const dispose = { async [Symbol.asyncDispose]() {} };
export const contractVersion = 1;
export const adapter = {
  mesh: '${mesh}', title: '${mesh}', config: { parse: (input) => input }, tls: {},
  expect: () => ({ form: 'spiffe' }), needs: () => [],
  ${members}
};`;

/** Each breaks in its own way, with the code that its MeshCertificate gets. */
const BROKEN = {
  throwing: { code: 'ERR_ADAPTER_LOAD', message: /Error: boom/, text: "throw new Error('boom');" },
  unparsable: { code: 'ERR_ADAPTER_LOAD', message: /SyntaxError/, text: 'export const = 1;' },
  newer: {
    code: 'ERR_ADAPTER_LOAD',
    message: /contractVersion 9, and this agent has version 1/,
    text: 'export const contractVersion = 9;\nexport const adapter = {};',
  },
  shapeless: {
    code: 'ERR_ADAPTER_LOAD',
    message: /the adapter has no expect\(\), needs\(\), open\(\)/,
    text: 'export const contractVersion = 1;\nexport const adapter = {};',
  },
  unopened: {
    code: 'ERR_ADAPTER_BROKEN',
    message: /open\(\) failed: boom/,
    text: adapter('unopened', "open() { throw new Error('boom'); }"),
  },
  garbage: {
    code: 'ERR_ADAPTER_BROKEN',
    message: /watch\(\) failed: its key is undefined/,
    text: adapter('garbage', "open: () => ({ ...dispose, async *watch() { yield { id: 'spiffe://a/b' }; } })"),
  },
  needy: {
    code: 'ERR_ADAPTER_BROKEN',
    message: /needs\(\) failed: what needs\(\) returns is a number/,
    text: adapter('needy', 'needs: () => 5, open: () => {},'),
  },
} as const;
const NAMES = Object.keys(BROKEN) as (keyof typeof BROKEN)[];

describe('meshcert --adapter', () => {
  let cluster: SandboxCluster;
  let directory: string;
  let bundle: string;
  const fileOf = (name: string) => join(directory, `${name}.mjs`);

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'meshcert-adapters-'));
    bundle = await builtBundle();
    for (const name of NAMES) await writeFile(fileOf(name), BROKEN[name].text);
    cluster = await startCluster({ meshes: ['istio'], sandboxes });
    const known = NAMES.map((mesh) => {
      const stub = { mesh, title: mesh, config: { parse() {} }, tls: {}, expect() {}, needs() {}, open() {} };
      return outsideAdapter({ contractVersion: 1, adapter: stub }, `${mesh}.mjs`);
    });
    cluster.api.put(customResourceDefinition([...adapters, ...known], gateways));
  });

  after(async () => {
    await cluster.stop();
    await rm(directory, { recursive: true });
  });

  it('affects only the MeshCertificates of a broken adapter, each with the reason in its status', async () => {
    for (const mesh of cluster.meshes) cluster.api.put(cluster.meshCertificate(mesh));
    for (const name of NAMES) {
      const metadata = { name, namespace: 'emissary' };
      cluster.api.put({ apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata, spec: { [name]: {} } });
    }
    const kubeconfig = join(directory, 'kubeconfig');
    await cluster.api.writeKubeconfig(kubeconfig);
    const flags = ['-n', 'emissary', '--no-leader-elect', '--listen', '127.0.0.1:0', '--kubeconfig', kubeconfig];
    await using agent = new AgentProcess(bundle, [
      'agent',
      ...flags,
      ...NAMES.flatMap((name) => ['--adapter', fileOf(name)]),
    ]);
    const wanted = new Map<string, RegExp>(NAMES.map((name) => [name, BROKEN[name].message]));
    const statuses = await statusesWhen(cluster, (found) =>
      [...wanted].every(([name, message]) =>
        message.test(found.get(name)?.lastError?.message ?? messageIn(found, name)),
      ),
    );
    for (const name of NAMES) {
      const status = statuses.get(name);
      const reported = `${status?.lastError?.code} ${messageIn(statuses, name)}`;
      assert.ok(reported.includes(BROKEN[name].code), `${name}: ${reported}`);
      assert.equal(conditionOf(status, 'Ready')?.status, 'False', name);
    }
    const ready = await statusesWhen(cluster, (found) => conditionOf(found.get('istio'), 'Ready')?.status === 'True');
    assert.equal(ready.get('istio')?.mesh, 'istio');
    assert.equal(agent.exit, undefined, agent.stderr);
    const url = agent.url;
    assert.ok(url);
    const answer = await fetch(new URL('/readyz', url));
    assert.equal(answer.status, 200);
    const problems = await answer.text();
    for (const name of NAMES) {
      if (BROKEN[name].code === 'ERR_ADAPTER_LOAD') assert.match(problems, new RegExp(`adapter \\S+/${name}\\.mjs`));
    }
  });

  it('ends commands that judge or print with the reason', async () => {
    for (const command of [['schema'], ['doctor', '--list'], ['render', '-f', '-']]) {
      const { code, output } = await capture(process.execPath, [bundle, ...command, '--adapter', fileOf('newer')]);
      assert.equal(code, 1, output);
      assert.match(output, /ERR_ADAPTER_LOAD: adapter \S+newer\.mjs: it exports contractVersion 9/);
    }
    const device = await capture(process.execPath, [bundle, 'schema', '--adapter', '/dev/zero']);
    assert.match(device.output, /ERR_ADAPTER_LOAD: adapter \/dev\/zero: it is not a file of at most 32 MiB/);
    const { output } = await capture(process.execPath, [bundle, 'schema', '--adapter', fileOf('absent')]);
    assert.match(output, /ERR_ADAPTER_LOAD: adapter \S+absent\.mjs: no such file or directory; check the path/);
  });

  it('names the file whose exception or rejection nothing handled, and shows no key that the error carries', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const body = privateKey.export({ type: 'pkcs8', format: 'der' }).toString('base64');
    const strays = {
      exception: 'setTimeout(() => { throw STRAY; }); await new Promise((resolve) => setTimeout(resolve, 5000));',
      rejection: 'Promise.reject(STRAY); await new Promise((resolve) => setTimeout(resolve, 5000));',
    };
    for (const [name, text] of Object.entries(strays)) {
      const pem = `-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----`;
      const error = `const STRAY = Object.assign(new TypeError('boom ' + ${JSON.stringify(pem)}), { key: ${JSON.stringify(body)} });`;
      await writeFile(fileOf(name), `${error}\n${text}`);
      const { code, output } = await capture(process.execPath, [bundle, 'schema', '--adapter', fileOf(name)]);
      assert.equal(code, 1, output);
      assert.match(output, /^meshcert: ERR_UNHANDLED: TypeError: boom/, output);
      assert.ok(output.includes(`${fileOf(name)}:1`), output);
      assert.ok(!output.includes(body.slice(0, 40)), output);
    }
  });
});

type Statuses = ReadonlyMap<string, PublicationStatus>;

const conditionOf = (status: PublicationStatus | undefined, type: string) =>
  status?.conditions.find((one) => one.type === type);

const messageIn = (statuses: Statuses, name: string): string =>
  statuses.get(name)?.lastError?.message ?? conditionOf(statuses.get(name), 'Degraded')?.message ?? '';

/** The statuses in the cluster as soon as they match. */
async function statusesWhen({ kube }: SandboxCluster, wanted: (statuses: Statuses) => boolean): Promise<Statuses> {
  const stop = new AbortController();
  const options = { clock: systemClock, random: Math.random, log: silentLog, signal: stop.signal };
  const certificates = reflect(kube, RESOURCES.meshCertificates, { namespace: 'emissary' }, options);
  try {
    for await (const _ of certificates.changes()) {
      const statuses = new Map(
        [...certificates.items().values()].flatMap(({ metadata, status }) =>
          status ? [[metadata.name, status as PublicationStatus] as const] : [],
        ),
      );
      if (wanted(statuses)) return statuses;
    }
    throw new Error('the watch ended');
  } finally {
    stop.abort(new Error('seen'));
  }
}
