import assert from 'node:assert/strict';
import { createServer, connect as netConnect, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { adapters } from '../../adapters/index.ts';
import { istio } from '../../adapters/istio/adapter.ts';
import { linkerd } from '../../adapters/linkerd/adapter.ts';
import { listen } from '../../sandbox/tls/upstream.ts';
import { systemClock } from '../../src/async/clock.ts';
import { validateObject } from '../../src/config/validate.ts';
import { diagnose } from '../../src/doctor/doctor.ts';
import { gateways } from '../../src/gateways.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { isIssuer } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { Follower } from '../contract/consul-follower.ts';
import { exampleOf, material, objectsOf, readExamples } from '../doctor/examples.ts';
import { checkJudged } from '../doctor/judged.ts';
import { hostFor } from '../support/host.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type Consul, startConsul } from './servers/consul.ts';
import { createServiceToken } from './servers/consul-levers.ts';
import { type Istiod, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type LinkerdJudge, startLinkerdJudge } from './servers/linkerd-judge.ts';

const CRD = join(fileURLToPath(new URL('../..', import.meta.url)), 'deploy/crd/meshcertificate.yaml');
const MCERTS = '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates';
const TOKEN_FILE = '/var/run/consul/token';
const { texts } = material();
const { base } = readExamples();
type Fields = Readonly<Record<string, unknown>>;

const validate = (object: KubeObject) => {
  const result = validateObject(object, adapters, gateways);
  return result.ok ? [] : result.issues.map(({ message }) => message);
};
const codesOf = (objects: readonly KubeObject[]) =>
  diagnose({ adapters, objects, now: Date.now(), whole: new Set(), validate }).map(({ code }) => code);

/** The MeshCertificate of an example, in which doctor finds the trap, or no longer finds it after this change. */
function certificateOf(code: string, fix?: readonly [wrong: string | RegExp, right: string]): KubeObject {
  const yaml = fix ? exampleOf(code).replace(...fix) : exampleOf(code);
  const objects = objectsOf(texts, base, yaml);
  assert.equal(codesOf(objects).includes(code), fix === undefined, `${code} in ${yaml}`);
  const found = objects.find(({ kind }) => kind === 'MeshCertificate');
  assert.ok(found);
  return found;
}
const meshOf = (object: KubeObject, mesh: string) => (object.spec as Record<string, Fields>)[mesh] ?? {};
const codeOf = (issue: Promise<unknown>) =>
  issue.then(
    () => 'issued',
    (error: unknown) => (error instanceof MeshError ? error.code : error),
  );

describe('the traps of docs/checks.md that only a mesh can show', () => {
  const judged = new Set<string>();
  const trapTest = (code: string, harm: string, act: () => Promise<void>) => {
    judged.add(code);
    it(`${code}: ${harm}`, act);
  };
  let apiserver: KubeApiserver;
  let istiod: Istiod;
  let judge: LinkerdJudge;
  let consul: Consul;
  let kube: Kube;
  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { emissary: ['emissary', 'edge.gateway'], 'istio-system': [] });
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'meshcert' });
    istiod = await startIstiod({ apiserver });
    judge = await startLinkerdJudge({ apiserver });
    consul = await startConsul({ acl: true });
  });
  after(async () => {
    kube?.close();
    await consul?.stop();
    await judge?.stop();
    await istiod?.stop();
    await apiserver?.stop();
  });

  /** With `account`, its token is sent in place of the configured one's. */
  async function issue(mesh: 'istio' | 'linkerd', config: Fields, account?: string): Promise<unknown> {
    const real = hostFor(kube);
    const { token } = real;
    const host = Object.assign(real, {
      token: ((request, signal) =>
        token.call(
          real,
          account ? { ...request, serviceAccount: { namespace: 'emissary', name: account } } : request,
          signal,
        )) satisfies typeof token,
    });
    const opened =
      mesh === 'istio'
        ? istio.open(istio.config.parse(config), host)
        : linkerd.open(linkerd.config.parse(config), host);
    assert.ok(isIssuer(opened));
    try {
      return await opened.issue(AbortSignal.timeout(20_000));
    } finally {
      await opened[Symbol.asyncDispose]();
    }
  }

  /** The address that the name in `address` resolves to here; the name is still the one that is verified. */
  const dialled = (object: KubeObject, address: string): Fields => {
    const { ca } = meshOf(object, 'istio') as { ca: { address: string; serverName?: string } };
    return { ca: { serverName: ca.address.replace(/:\d+$/, ''), ...ca, address } };
  };

  trapTest('MC2006', 'the real istiod is not known by this name, and issues nothing', async () => {
    assert.equal(await codeOf(issue('istio', dialled(certificateOf('MC2006'), istiod.secureAddress))), 'ERR_MESH_TLS');
    for (const fix of [
      ['.svc.cluster.local', '.svc'],
      ["15012'", "15012', serverName: istiod.istio-system.svc"],
    ] as const)
      assert.equal(await codeOf(issue('istio', dialled(certificateOf('MC2006', fix), istiod.secureAddress))), 'issued');
  });

  trapTest('MC2007', 'the plaintext port of the real istiod takes no TLS', async () => {
    const code = await codeOf(issue('istio', dialled(certificateOf('MC2007'), istiod.plaintextAddress)));
    assert.match(String(code), /^ERR_MESH_(TLS|UNREACHABLE)$/);
    const right = certificateOf('MC2007', ['15010', '15012']);
    assert.equal(await codeOf(issue('istio', dialled(right, istiod.secureAddress))), 'issued');
  });

  trapTest('MC3007', 'Linkerd refuses the token of such an account', async () => {
    const { serviceAccount } = meshOf(certificateOf('MC3007'), 'linkerd') as { serviceAccount: { name: string } };
    // Our own configuration refuses the name, so that an agent never gets this far.
    const config = {
      ...meshOf(certificateOf('MC3007', ['edge.gateway', 'emissary']), 'linkerd'),
      address: judge.tlsAddress,
    };
    assert.equal(await codeOf(issue('linkerd', config, serviceAccount.name)), 'ERR_MESH_TOKEN');
    assert.equal(await codeOf(issue('linkerd', config)), 'issued');
  });

  /** To the real Consul with the service's configuration, and the token of an account. */
  async function follow(object: KubeObject, account: string, way: Fields): Promise<Follower> {
    const { service, datacenter } = meshOf(object, 'consul');
    const files = new Map([[TOKEN_FILE, (await createServiceToken(consul, account)).secret]]);
    const where = way.grpc ? { datacenter } : {};
    return new Follower({ service, ...where, ...way, auth: { tokenFile: TOKEN_FILE } }, { clock: systemClock, files });
  }
  const outcome = (follower: Follower) =>
    Promise.race([follower.identity().then(() => 'issued'), follower.error().then(({ code }) => code)]);
  const grpc = (address: string): Fields => ({ grpc: { addresses: [address], plaintext: true } });

  trapTest('MC4001', 'the real Consul signs for no other service than that of the account', async () => {
    await using wrong = await follow(certificateOf('MC4001'), 'emissary', grpc(consul.grpcAddress));
    assert.equal(await outcome(wrong), 'ERR_MESH_DENIED');
    const equal = certificateOf('MC4001', ['service: edge', 'service: emissary']);
    await using right = await follow(equal, 'emissary', grpc(consul.grpcAddress));
    assert.equal(await outcome(right), 'issued');
  });

  trapTest('MC4002', 'the token and the private key are read by whoever listens', async () => {
    await using clear = await startTap(new URL(consul.url).port);
    await using open = await follow(certificateOf('MC4002'), 'edge', {
      http: { address: `http://127.0.0.1:${clear.port}` },
    });
    assert.equal(await outcome(open), 'issued');
    assert.match(clear.heard(), /x-consul-token: [0-9a-f-]{36}/i);
    assert.match(clear.heard(), /PRIVATE KEY/);
    await using covered = await startTap(new URL(consul.httpsUrl).port);
    const right = certificateOf('MC4002', ["http: {address: 'http:", "http: {address: 'https:"]);
    await using over = await follow(right, 'edge', {
      http: {
        address: `https://127.0.0.1:${covered.port}`,
        tls: { ca: { inline: consul.ca.root }, serverName: consul.serverName },
      },
    });
    assert.equal(await outcome(over), 'issued');
    assert.doesNotMatch(covered.heard(), /x-consul-token|PRIVATE KEY/i);
  });

  trapTest('MC4003', 'the HTTP port of the real Consul speaks no gRPC', async () => {
    const object = certificateOf('MC4003');
    await using wrong = await follow(object, 'edge', grpc(`127.0.0.1:${new URL(consul.url).port}`));
    assert.match(await outcome(wrong), /^ERR_MESH_/);
    await using right = await follow(certificateOf('MC4003', [':8500', ':8502']), 'edge', grpc(consul.grpcAddress));
    assert.equal(await outcome(right), 'issued');
  });

  trapTest('MC5006', 'the real API server refuses it', async () => {
    await apiserver.kubectl(['apply', '-f', CRD]);
    await apiserver.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev']);
    const { status, body } = await apiserver.call('POST', `${MCERTS}?dryRun=All`, certificateOf('MC5006'));
    assert.equal(status, 422);
    assert.match(body.message, /renewal\.at/);
    const right = await apiserver.call('POST', `${MCERTS}?dryRun=All`, certificateOf('MC5006', ['at: 2', 'at: 0.5']));
    assert.equal(right.status, 201);
  });

  it('docs/checks.md says which checks are tested here', () => checkJudged('meshes', judged));
});

/** A listener on the way to a port, like an attacker on the network. */
async function startTap(port: string) {
  let heard = '';
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = netConnect(Number(port), '127.0.0.1');
    for (const [one, another] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(one);
      one.on('data', (bytes: Buffer) => {
        heard += bytes.toString('latin1');
      });
      one.on('error', () => another.destroy()).on('close', () => another.destroy());
    }
    client.pipe(upstream).pipe(client);
  });
  return {
    port: await listen(server),
    heard: () => heard,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
