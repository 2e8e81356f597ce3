import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { gateways } from '../../src/gateways.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { type AgentProcess, startAgentProcess } from '../peers/parts/agent-process.ts';
import { eventually } from '../peers/parts/eventually.ts';
import { discard, scratchDir } from '../peers/servers/process.ts';
import { type EchoMesh, startEchoMesh } from '../support/echo-mesh.ts';

const NAMESPACE = 'emissary';

/** Random, and not matched by any pattern. */
const opaque = (): string => `opaque.${randomBytes(18).toString('base64url')}`;
const claims = { sub: `system:serviceaccount:${NAMESPACE}:gateway`, aud: ['any'], exp: 4_102_444_800 };
const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const jwt = (): string => `${encoded({ alg: 'RS256' })}.${encoded(claims)}.${randomBytes(32).toString('base64url')}`;

interface Case {
  readonly name: string;
  /** The content of the token file. */
  readonly text: string;
  readonly spec: (echo: EchoMesh, tokenFile: string) => object;
  /** Of `lastError`. */
  readonly code: string;
  /** The token reaches the server. */
  readonly isSent?: true;
}

const istio = ({ grpcs, root }: EchoMesh, tokenFile: string) => ({
  istio: {
    id: 'spiffe://cluster.local/ns/emissary/sa/gateway',
    ca: { address: grpcs, serverName: 'localhost', tokenFile, root: { inline: root } },
  },
});
const linkerd = ({ grpcs }: EchoMesh, tokenFile: string) => ({
  linkerd: { tokenFile, address: grpcs, trustDomain: 'cluster.local', clusterDomain: 'cluster.local' },
});
const consul = ({ http: address }: EchoMesh, tokenFile: string) => ({
  consul: { http: { address }, auth: { tokenFile } },
});
const consulGrpc = ({ grpc }: EchoMesh, tokenFile: string) => ({
  consul: { datacenter: 'dc1', grpc: { addresses: [grpc], plaintext: true }, auth: { tokenFile } },
});
const login = ({ http: address }: EchoMesh, tokenFile: string) => ({
  consul: { http: { address }, auth: { login: { method: 'k8s', tokenFile } } },
});
const brokenLogin = (echo: EchoMesh, tokenFile: string) => login({ ...echo, http: echo.brokenLogin }, tokenFile);
const grpcLogin = ({ grpc }: EchoMesh, tokenFile: string) => ({
  consul: {
    datacenter: 'dc1',
    grpc: { addresses: [grpc], plaintext: true },
    auth: { login: { method: 'k8s', tokenFile } },
  },
});

const bad = 'ERR_MESH_TOKEN';
const cases: readonly Case[] = [
  { name: 'istio-echo', text: jwt(), spec: istio, code: 'ERR_MESH_UNAVAILABLE', isSent: true },
  { name: 'istio-two-lines', text: `${opaque()}\n${opaque()}\n`, spec: istio, code: bad },
  { name: 'istio-unicode', text: `${opaque()}é`, spec: istio, code: bad },
  { name: 'istio-control', text: `${opaque()}\u0007`, spec: istio, code: bad },
  { name: 'linkerd-echo', text: `${jwt()}\n`, spec: linkerd, code: 'ERR_MESH_UNAVAILABLE', isSent: true },
  { name: 'linkerd-two-lines', text: `${jwt()}\n${jwt()}`, spec: linkerd, code: bad },
  { name: 'consul-echo', text: `${opaque()}\r\n`, spec: consul, code: 'ERR_MESH_UNAVAILABLE', isSent: true },
  { name: 'consul-unicode', text: `${opaque()}ü`, spec: consul, code: bad },
  { name: 'consul-space', text: `${opaque()} ${opaque()}`, spec: consul, code: bad },
  { name: 'consul-grpc-echo', text: opaque(), spec: consulGrpc, code: 'ERR_MESH_UNAVAILABLE', isSent: true },
  { name: 'consul-grpc-two-lines', text: `${opaque()}\n${opaque()}`, spec: consulGrpc, code: bad },
  { name: 'consul-login-echo', text: jwt(), spec: login, code: 'ERR_MESH_DENIED', isSent: true },
  { name: 'consul-login-two-lines', text: `${opaque()}\n${opaque()}`, spec: login, code: bad },
  { name: 'consul-login-broken-answer', text: jwt(), spec: brokenLogin, code: bad, isSent: true },
  { name: 'consul-grpc-login-echo', text: jwt(), spec: grpcLogin, code: 'ERR_MESH_UNAVAILABLE', isSent: true },
];
const loginAnswer = `${opaque()}\n${opaque()}`;

/** Pieces of each secret, so that a part of one is found too, in the encodings that a sink might use. */
function piecesOf(text: string): string[] {
  const parts = text.split(/[^\w-]+/).filter((part) => part.length >= 16 && !/^eyJhbGciOiJSUzI1NiJ9$/.test(part));
  // The claims of a token are not secret; its signature is.
  const secret = parts.filter((part) => !part.startsWith('eyJ'));
  const chunks = secret.flatMap((part) => [part.slice(0, 12), part.slice(-12)]);
  return chunks.flatMap((chunk) => [chunk, Buffer.from(chunk).toString('base64').slice(0, 16)]);
}

describe("the agent's output while a malicious server repeats its tokens, and while token files are broken", () => {
  let echo: EchoMesh;
  let api: KubeApi;
  let agent: AgentProcess;
  let dir: string;
  const said = new Map<string, string>();

  before(async () => {
    dir = scratchDir('tokens');
    echo = await startEchoMesh(loginAnswer);
    api = await startKubeApi({ tls: false, namespaces: [NAMESPACE, 'linkerd'] });
    api.put(customResourceDefinition(adapters, gateways));
    // Whose tokens the JWTs are, as far as the API server can tell.
    api.put({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'gateway', namespace: NAMESPACE } });
    for (const { name, text, spec } of cases) {
      const tokenFile = join(dir, name);
      await writeFile(tokenFile, text);
      api.put({
        apiVersion: 'meshcert.dev/v1alpha1',
        kind: 'MeshCertificate',
        metadata: { name, namespace: NAMESPACE },
        spec: spec(echo, tokenFile),
      });
    }
    api.put({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'linkerd-identity-trust-roots', namespace: 'linkerd' },
      data: { 'ca-bundle.crt': echo.root },
    });
    const kubeconfig = join(dir, 'kubeconfig');
    await api.writeKubeconfig(kubeconfig);
    const args = ['-n', NAMESPACE, '--observe', 'names', '--files-below', dir, '--no-leader-elect'];
    agent = await startAgentProcess({ kubeconfig, args, stdout: '>agent.log 2>&1' });
    await eventually('every MeshCertificate to fail', async () => {
      const statuses = await agent.statuses();
      return statuses.length === cases.length && statuses.every(({ status }) => status.lastError !== undefined);
    });
    await eventually('every status to be stored', async () => {
      const stored = await list('/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates');
      return stored.every((one) => (one.status as PublicationStatus | undefined)?.lastError !== undefined);
    });
    await eventually('an Event for each', async () => {
      const about = new Set((await list('/api/v1/events')).map((one) => (one.involvedObject as { name: string }).name));
      return cases.every(({ name }) => about.has(name));
    });
    for (const path of ['/readyz', '/api/status', '/', '/metrics']) said.set(path, await page(path));
    said.set('/events', await firstOf('/events'));
    said.set('/events?view=page', await firstOf('/events?view=page'));
    const stored = await list('/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates');
    said.set('statuses', JSON.stringify(stored.map(({ metadata, status }) => [metadata.name, status])));
    said.set('Events', JSON.stringify(await list('/api/v1/events')));
    said.set('log', await readFile(join(agent.dir, 'agent.log'), 'utf8'));
    await agent.stop();
    said.set('exit message', await exitMessage(['--kubeconfig', kubeconfig, ...args, '--once', '--listen', 'off']));
  });

  after(async () => {
    await agent?.stop();
    await api?.stop();
    await echo?.[Symbol.asyncDispose]();
    discard(dir);
  });

  for (const { name, code } of cases) {
    it(`reports ${code} for ${name}`, () => {
      const status = said.get('/api/status') ?? '';
      const { certificates } = JSON.parse(status) as { certificates: { name: string; status: PublicationStatus }[] };
      const { lastError } = certificates.find((one) => one.name === name)?.status ?? {};
      assert.equal(lastError?.code, code, lastError?.message);
      if (code === bad && name !== 'consul-login-broken-answer') assert.ok(lastError.message.includes(join(dir, name)));
    });
  }

  it('sends the valid tokens, so that there is something to repeat', () => {
    for (const { name, text, isSent } of cases) {
      assert.equal(echo.received().includes(text.trim()), isSent === true, name);
    }
  });

  for (const sink of [
    ...['log', 'statuses', 'Events', '/readyz', '/api/status', '/', '/events', '/events?view=page', '/metrics'],
    'exit message',
  ]) {
    it(`shows no part of a token in the ${sink}`, () => {
      const text = said.get(sink) ?? '';
      if (sink !== '/metrics')
        assert.ok(
          cases.every(({ name }) => text.includes(name)),
          'speaks of every one',
        );
      for (const { name, text: secret } of [...cases, { name: 'the answer to the login', text: loginAnswer }]) {
        for (const piece of piecesOf(secret)) {
          assert.ok(!text.includes(piece), `${sink} shows ${piece} of the token of ${name}`);
        }
      }
    });

    it(`quotes nothing that the server wrote in the ${sink}`, () => {
      assert.doesNotMatch(said.get(sink) ?? '', /rawHeaders|x-consul-token|BearerToken|clusterid/i);
    });
  }

  async function list(path: string): Promise<(KubeObject & Record<string, unknown>)[]> {
    const response = await fetch(`${api.url}${path}`, { headers: { authorization: `Bearer ${api.adminToken}` } });
    return ((await response.json()) as { items: (KubeObject & Record<string, unknown>)[] }).items;
  }

  const page = async (path: string): Promise<string> => (await fetch(`${agent.url}${path}`)).text();

  async function firstOf(path: string): Promise<string> {
    const stop = new AbortController();
    const { body } = await fetch(`${agent.url}${path}`, { signal: stop.signal });
    let text = '';
    try {
      for await (const part of (body ?? []) as AsyncIterable<Uint8Array>) {
        text += Buffer.from(part).toString();
        if (text.includes('\n\n')) break;
      }
    } finally {
      stop.abort();
    }
    return text;
  }
});

/** The standard error of a one-shot agent that is ended after everything has failed. */
async function exitMessage(flags: readonly string[]): Promise<string> {
  const child = spawn(process.execPath, [await builtBundle(), 'agent', ...flags]);
  let log = '';
  let message = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    log += text;
    const haveAllFailed = cases.every(({ name }) => log.includes(`${NAMESPACE}/${name}","code"`));
    // A second SIGTERM would end it at once.
    if (haveAllFailed && !child.killed) child.kill('SIGTERM');
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    message += text;
  });
  const [code] = await once(child, 'close');
  assert.equal(code, 1, message);
  return message;
}
