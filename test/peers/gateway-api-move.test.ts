import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { dirname, join } from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';
import { parseAllDocuments, stringify } from 'yaml';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { ROOT } from '../../scripts/tree.ts';
import { connect } from '../../src/kube/client.ts';
import { blocksOf } from '../cluster/session.ts';
import { peer } from './build.ts';
import { startAgentProcess } from './parts/agent-process.ts';
import { startEnvoyGateway } from './parts/envoy-gateway.ts';
import { eventually } from './parts/eventually.ts';
import {
  envoyProxy,
  gateway,
  type Seen,
  serialOf,
  service,
  startGatewayLab,
  startUpstream,
} from './parts/gateway-lab.ts';
import { writePair } from './parts/mesh-files.ts';
import { authority, type KeyPair } from './servers/authority.ts';
import type { ApplyObject } from './servers/kube-client.ts';
import { discard, scratchDir } from './servers/process.ts';

const DAY = 86_400_000;
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const GUIDE = 'docs/gateway-api.md';

/** The part of requests that go to the Gateway; the rest goes to Emissary. */
type Share = 0 | 0.5 | 1;

it('moves from Emissary to Envoy Gateway and back by the commands of the guide, without a failed request', async (t) => {
  const mesh = await authority('mesh', 3 * DAY);
  await using lab = await startGatewayLab();
  const { apiserver, envoyGateway } = lab;
  const definitions = ambassadorDefinitions().map((one) => stringify(one));
  await apiserver.kubectl(['apply', '-f', '-'], { input: definitions.join('---\n') });
  await apiserver.kubectl(['apply', '--server-side', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
  await apiserver.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
  await apiserver.ensureNamespace('emissary');
  await using upstream = await startUpstream({ leaf: await mesh.issue({ uri: [WEB] }), roots: mesh.root });
  await envoyGateway.expose(upstream.port);
  await lab.apply(...service('web', upstream));

  const dir = scratchDir('move');
  await using _dir = { [Symbol.asyncDispose]: async () => discard(dir) };
  const files = join(dir, 'identity');
  await mkdir(files);
  let ttlMs = DAY;
  const rotate = async (): Promise<KeyPair> => {
    ttlMs += 60_000;
    const pair = await mesh.issue({ uri: ['spiffe://cluster.local/ns/emissary/sa/emissary'], ttlMs });
    await writePair(files, pair, mesh.root);
    return pair;
  };
  await rotate();

  const sections = await Promise.all(['## Set it up', '## Move from Emissary'].map((one) => blocksOf(GUIDE, one)));
  const [setUp = [], blocks = []] = sections;
  const scripts = blocks.filter(({ language }) => language === 'sh').map(({ text }) => text);
  const [both = '', route = ''] = blocks.filter(({ language }) => language === 'yaml').map(({ text }) => text);
  assert.equal(scripts.length, 4);

  /** Files of this machine stand in for istiod; they do not say who the workloads are. */
  const byFiles = (yaml: string) =>
    yaml
      .replace('istio: {ca: {serviceAccount: emissary-ingress}}', `file: {directory: ${files}}`)
      .replace('namespaces: [shop]}', `namespaces: [shop]}\n    subjectAltNames: ['${WEB}']`);
  const [before = ''] = byFiles(both).split('  gatewayApi:');
  const edge = gateway('edge');
  const gatewayYaml = parseAllDocuments(setUp.find(({ text }) => text.includes('kind: EnvoyProxy'))?.text ?? '')
    .map((document) => {
      const object = document.toJS() as ApplyObject;
      if (object.kind === 'EnvoyProxy') {
        const { backendTLS: _, ...spec } = envoyProxy('edge', {}).spec as Record<string, unknown>;
        return { ...object, spec };
      }
      const { listeners } = edge.spec as { listeners: unknown };
      return { ...object, spec: { ...(object.spec as object), listeners } };
    })
    .map((object) => stringify(object));
  const bin = join(dir, 'bin');
  await mkdir(bin);
  await symlink(await builtBundle(), join(bin, 'meshcert'));
  await writeFile(join(dir, 'gateway.yaml'), gatewayYaml.join('---\n'));
  await writeFile(join(dir, 'both.yaml'), byFiles(both));
  await writeFile(join(dir, 'route.yaml'), route);
  const path = [bin, dirname(await peer('kubectl')), dirname(process.execPath), process.env.PATH].join(':');
  const run = async (script = '') => {
    const env = { PATH: path, KUBECONFIG: apiserver.kubeconfigFile, HOME: dir };
    const { stdout, stderr } = await promisify(execFile)('bash', ['-eo', 'pipefail', '-c', script], { cwd: dir, env });
    t.diagnostic(`$ ${script.trim()}\n${stdout}${stderr}`);
  };

  // What Emissary's user has.
  await writeFile(join(dir, 'before.yaml'), before);
  const mapping = {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: 'web', namespace: 'emissary', labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: '/web/', service: 'https://web.shop:443' },
  };
  await apiserver.kubectl(['apply', '-f', '-'], { input: stringify(mapping) });
  await run('kubectl apply -f before.yaml');
  await using agent = await startAgentProcess({
    kubeconfig: apiserver.kubeconfigFile,
    args: ['-n', 'emissary', '--files-below', files],
  });
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'emissary' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  await using emissary = await startEnvoyGateway({
    kube,
    resolve: (host) => (host === 'web.shop' ? upstream.port : undefined),
    freshEvery: 5,
  });
  let cluster = '';
  await emissary
    .until(({ clusters }) => {
      const found = [...clusters.values()].find(({ tls }) => tls?.certificate && tls.ca);
      cluster = found?.name ?? '';
      return found !== undefined;
    })
    .catch((error) => assert.fail(`${error}\n${agent.log()}`));

  const traffic: { share: Share } = { share: 0 };
  const counts = { emissary: 0, gateway: 0 };
  const problems: string[] = [];
  const viaEmissary = (): Promise<{ status: number; seen: Seen | undefined }> =>
    new Promise((resolve, reject) => {
      get(emissary.url, { agent: false, headers: { 'x-cluster': cluster } }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (part) => {
          body += part;
        });
        const { statusCode: status = 0 } = response;
        response.on('end', () => resolve({ status, seen: status === 200 ? (JSON.parse(body) as Seen) : undefined }));
      }).on('error', reject);
    });
  const ask = async (by: 'emissary' | 'gateway') => {
    const { status, seen } = by === 'emissary' ? await viaEmissary() : await lab.ask(edge, '/web/');
    counts[by] += 1;
    if (status !== 200 || !seen?.tls || seen.serial === null) problems.push(`${by}: ${status} ${JSON.stringify(seen)}`);
    return seen;
  };
  const stop = new AbortController();
  const load = (async () => {
    for (let request = 0; !stop.signal.aborted; request++) {
      const toGateway = traffic.share === 1 || (traffic.share === 0.5 && request % 2 === 0);
      await ask(toGateway ? 'gateway' : 'emissary').catch((error) => problems.push(String(error)));
    }
  })();
  /** Rotates, and waits until those gateways present the new certificate. */
  const rotated = async (...by: readonly ('emissary' | 'gateway')[]) => {
    const serial = serialOf(await rotate());
    for (const one of by) {
      const holds = async () => (await ask(one))?.serial === serial;
      await eventually(`the rotated certificate by ${one}`, holds, agent.log);
    }
  };

  const [create, useBoth, routeLast, retire] = scripts;
  await rotated('emissary');
  await run(create);
  await run(useBoth);
  await run(routeLast);
  await eventually('the route', async () => (await lab.ask(edge, '/web/')).seen?.tls === true, envoyGateway.log);
  for (const next of [0.5, 1, 0, 1] as const) {
    traffic.share = next;
    await rotated('emissary', 'gateway');
  }
  await run(retire);
  await rotated('gateway');
  stop.abort();
  await load;
  assert.deepEqual(problems, [], agent.log());
  t.diagnostic(`requests by Emissary ${counts.emissary}, by the Gateway ${counts.gateway}; failed or in plaintext 0`);
  assert.ok(counts.emissary > 0 && counts.gateway > 0);
});
