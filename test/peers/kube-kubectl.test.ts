import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { NEWEST, peer } from './build.ts';
import { startKubeApiserver } from './servers/kube-apiserver.ts';

const gateway = (sni: string) => `
apiVersion: getambassador.io/v3alpha1
kind: TLSContext
metadata: {name: istio, namespace: emissary}
spec: {hosts: [], secret: istio-identity, ca_secret: istio-ca, sni: ${sni}}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: quote, namespace: emissary, labels: {mesh: istio}}
spec: {prefix: /quote/, service: quote, tls: istio}
`;
const wrong = gateway('one').replace('sni: one', 'sni: one, unheard: of');
const job = 'apiVersion: batch/v9\nkind: Job\nmetadata: {name: a}\n';

const certificate = (spec: string, name = 'istio') => `
apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: ${name}, namespace: emissary}
spec: ${spec}
`;
const istio = 'istio: {ca: {serviceAccount: emissary}}';

/** What a user does, in this order; `-f -` reads the second element. */
const SESSION: readonly (string | readonly [string, string])[] = [
  'create namespace emissary',
  'create secret generic istio-ca --from-literal=tls.crt=pem --from-literal=ca.crt=pem',
  'create secret generic istio-ca --from-literal=tls.crt=pem',
  'create configmap settings --from-literal=a=b',
  'create serviceaccount agent',
  ['apply -f -', gateway('one')],
  ['apply -f -', gateway('one')],
  ['diff -f -', gateway('one')],
  ['apply -f -', gateway('two')],
  ['apply --server-side -f -', gateway('three')],
  ['apply --server-side --force-conflicts -f -', gateway('three')],
  ['apply --server-side --field-manager=other -f -', gateway('four')],
  ['apply --dry-run=server -f -', gateway('five')],
  ['apply -f -', wrong],
  ['apply --server-side -f -', wrong],
  ['apply -f -', job],
  'get secrets,configmaps,tlscontexts',
  'get mappings -o wide',
  'get mappings -o name -l mesh=istio',
  'get mappings -l mesh!=istio',
  'get secret istio-ca -o yaml',
  'get secret none',
  'get tlscontext istio -o yaml',
  'get tlscontext istio -o jsonpath={.spec.sni}',
  'get ambassador-crds',
  'describe tlscontext istio',
  'describe secret istio-ca',
  'label secret istio-ca mesh=istio',
  'annotate secret istio-ca meshcert.dev/renew=now',
  'patch secret istio-ca -p {"metadata":{"labels":{"mesh":null}}}',
  'patch tlscontext istio --type=merge -p {"spec":{"sni":"six"}}',
  'patch tlscontext istio --type=json -p [{"op":"replace","path":"/spec/sni","value":"seven"}]',
  'patch tlscontext istio --type=strategic -p {"spec":{"sni":"eight"}}',
  'patch tlscontext istio --type=merge -p {"spec":{"min_tls_version":"v9"}}',
  'wait --for=jsonpath={.spec.sni}=seven tlscontext/istio --timeout=5s',
  'create role agent --verb=get --resource=secrets --resource-name=istio-ca',
  'create rolebinding agent --role=agent --serviceaccount=emissary:agent',
  'auth can-i get secret/istio-ca --as=system:serviceaccount:emissary:agent',
  'auth can-i get secret/other --as=system:serviceaccount:emissary:agent',
  'get secret istio-ca -o name --as=system:serviceaccount:emissary:agent',
  'get secret other --as=system:serviceaccount:emissary:agent',
  'get secrets --as=system:serviceaccount:emissary:agent',
  'explain tlscontext.spec.sni',
  ['apply -f -', certificate('{}')],
  ['apply -f -', certificate(`{${istio}, consul: {service: web}}`)],
  ['apply -f -', certificate('{istio: {}}')],
  ['apply -f -', certificate('{istio: {ca: {serviceAccount: a, tokenFile: /b}}}')],
  ['apply -f -', certificate(`{${istio}, secretName: same, caSecretName: same}`)],
  ['apply -f -', certificate(`{${istio}, secretName: istio-certs}`)],
  ['apply -f -', certificate(`{${istio}, secretName: Not_A_Name}`)],
  ['apply -f -', certificate(`{${istio}, deletionPolicy: Sometimes}`)],
  ['apply -f -', certificate(`{${istio}, renewal: {at: 0.8, jitter: 0.2}}`)],
  ['apply -f -', certificate(`{${istio}, renewal: {at: 2}}`)],
  ['apply -f -', certificate(`{${istio}, mappings: {selector: {matchLabels: {}}}}`)],
  ['apply -f -', certificate(`{${istio}, labels: {meshcert.dev/owner: me}}`)],
  ['apply -f -', certificate(`{${istio}, tlsContext: {minTlsVersion: v1.3, maxTlsVersion: v1.2}}`)],
  ['apply -f -', certificate(`{${istio}, trust: {retain: soon}}`)],
  ['apply -f -', certificate(`{${istio}, paused: 3}`)],
  ['apply -f -', certificate(`{${istio}, misspelt: x}`)],
  ['apply -f -', certificate(`{${istio}}`, 'with.dots')],
  ['apply -f -', certificate(`{${istio}}`)],
  ['apply -f -', certificate(`{linkerd: {serviceAccount: emissary}}`)],
  'get mcert',
  'get mcert -o wide',
  'get mcert istio -o yaml',
  'describe mcert istio',
  'explain mcert.spec',
  'explain mcert.spec.istio --recursive',
  'get --raw /readyz',
  'delete mapping quote',
  'delete mapping quote',
  'delete secret --all',
  'get secrets',
];

/** Without the parts that differ from run to run: times, ages, uids, versions, addresses. */
function normal(text: string): string {
  return text
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, 'TIME')
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, 'UID')
    .replaceAll(/^ +time: "TIME"\n/gm, '')
    .replaceAll(/(resourceVersion: |Resource Version:\s+)"?\d+"?/g, '$1N')
    .replaceAll(/ +\d+(ms|s|m)\b/g, ' AGE')
    .replaceAll(/\/\S*\/(LIVE|MERGED)-\d+/g, '$1')
    .replaceAll(/Invalid value: ".*?": strict/g, 'Invalid value: OBJECT: strict')
    .replaceAll(NEWEST ? /Invalid value: "[\w-]+": /g : /$^/g, 'Invalid value: ')
    .replaceAll(/[ \t]+$/gm, '');
}

describe('kubectl sees no difference between the sandbox and kube-apiserver', { timeout: 400_000 }, () => {
  const seen = { sandbox: [] as string[], real: [] as string[] };
  let dir = '';
  let stop = async () => {};
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'kubectl-'));
    const sandbox = await startKubeApi({ rbac: true });
    const real = await startKubeApiserver();
    stop = async () => {
      await sandbox.stop();
      await real.stop();
      await rm(dir, { recursive: true });
    };
    const config = join(dir, 'sandbox.kubeconfig');
    await sandbox.writeKubeconfig(config);
    const definitions = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: ambassadorDefinitions() });
    const own = join(dirname(fileURLToPath(import.meta.url)), '../../deploy/crd/meshcertificate.yaml');
    sandbox.put(parse(await readFile(own, 'utf8')));
    await real.kubectl(['apply', '-f', '-'], { input: definitions });
    await real.kubectl(['apply', '--server-side', '-f', own]);
    await real.kubectl(['wait', '--for=condition=Established', 'crd', '--all']);
    for (const step of SESSION) {
      seen.sandbox.push(await kubectl(config, step));
      seen.real.push(await kubectl(real.kubeconfigFile, step));
    }
  });
  after(() => stop());

  async function kubectl(kubeconfig: string, step: string | readonly [string, string]): Promise<string> {
    const [command, input = ''] = typeof step === 'string' ? [step] : step;
    const binary = await peer('kubectl');
    const args = [
      '--kubeconfig',
      kubeconfig,
      `--cache-dir=${kubeconfig}.cache`,
      '-n',
      'emissary',
      ...command.split(' '),
    ];
    return new Promise((resolve) => {
      const child = execFile(
        binary,
        args,
        // As newer ones do by default, it lists by a watch.
        { timeout: 30_000, env: { PATH: process.env.PATH, HOME: dir, KUBE_FEATURE_WatchListClient: 'true' } },
        (error, stdout, stderr) => resolve(normal(`exit ${error?.code ?? 0}\n${stdout}${stderr}`)),
      );
      child.stdin?.end(input);
    });
  }

  for (const [index, step] of SESSION.entries()) {
    const command = typeof step === 'string' ? step : step[0];
    it(`${index + 1}: kubectl ${command}`, () => assert.equal(seen.sandbox[index], seen.real[index]));
  }
});
