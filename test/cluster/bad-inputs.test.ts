import assert from 'node:assert/strict';
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { ROOT } from '../../scripts/tree.ts';
import { eventually } from '../peers/parts/eventually.ts';
import { discard, scratchDir } from '../peers/servers/process.ts';
import { type Cluster, noCluster, startCluster } from './cluster.ts';
import { VALUES } from './life.ts';
import { installIstiod } from './mesh/istio.ts';
import { apply } from './mesh/objects.ts';
import { openShell, packChart, type Shell } from './session.ts';

const skip = noCluster();

let cluster: Cluster;
let shell: Shell;
let chart: string;

before(async () => {
  if (skip) return;
  cluster = await startCluster({ images: ['meshcert', 'foreign', 'istiod'] });
  const dir = scratchDir('user');
  [shell, chart] = await Promise.all([openShell(cluster, dir), packChart(dir), installIstiod(cluster)]);
  await symlink(await builtBundle(), join(dir, 'kubectl-meshcert'));
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
  if (shell) discard(shell.dir);
});

/** What a script prints, once it matches. */
async function saidBy(script: string, pattern: RegExp): Promise<string> {
  let said = '';
  await eventually(
    String(pattern),
    async () => {
      said = await shell.run(`PATH=$PWD:$PATH\n${script}`);
      return pattern.test(said);
    },
    () => said,
  );
  return said;
}

test('without the definition, the agent says what to apply, and starts once it is there', { skip }, async (t) => {
  await shell.run(`kubectl create namespace bare
    ! helm install meshcert ${chart} -n bare --set crds.enabled=false -f ${VALUES}
    helm install meshcert ${chart} -n bare --set crds.enabled=false`);
  const logs = await saidBy('kubectl logs -n bare deployment/meshcert || true', /ERR_KUBE_NOT_FOUND/);
  t.diagnostic(logs);
  assert.match(logs, /CustomResourceDefinition meshcertificates\.meshcert\.dev: meshcert schema --crd/);
  const doctor = await shell.run('PATH=$PWD:$PATH kubectl meshcert doctor -n bare || true');
  assert.match(doctor, /^error MC6003 CustomResourceDefinition meshcertificates.meshcert.dev$/m);
  await shell.run(`kubectl apply --server-side -k ${ROOT}/deploy/crd
    kubectl rollout status deployment/meshcert -n bare --timeout=2m
    helm uninstall meshcert -n bare`);
});

test('PodSecurity restricted, enforced on the namespace, accepts the pods of the chart', { skip }, async () => {
  const said = await shell.run(`kubectl create namespace restricted
    kubectl label namespace restricted pod-security.kubernetes.io/enforce=restricted
    helm install meshcert ${chart} -n restricted
    kubectl rollout status deployment/meshcert -n restricted --timeout=2m
    ! kubectl run plain -n restricted --image=none --restart=Never`);
  assert.match(said, /successfully rolled out/);
  assert.match(said, /violates PodSecurity "restricted/, 'the namespace enforces nothing');
});

test('an image that is missing, and a cluster without the kinds of Emissary: doctor names both', {
  skip,
}, async (t) => {
  await shell.run(`kubectl create namespace missing
    helm install meshcert ${chart} -n missing --set image.tag=missing --set image.pullPolicy=Never`);
  const said = await saidBy('kubectl meshcert doctor -n missing || true', /\(ErrImageNeverPull\)/);
  t.diagnostic(said);
  assert.match(said, /^error MC6006 Deployment missing\/meshcert\n {2}0 of 2 pods are ready \(ErrImageNeverPull\)/m);
  // This cluster has no gateway.
  assert.match(said, /^error MC6004 .*tlscontexts.*\n.*does not know getambassador\.io.*\n {2}fix: install/m);
});

test('an image for another architecture: its log and doctor say so', { skip }, async (t) => {
  await shell.run(`kubectl create namespace foreign
    helm install meshcert ${chart} -n foreign --set image.tag=foreign --set replicas=1`);
  const states = "jsonpath='{.items[*].status.containerStatuses}'";
  t.diagnostic(await saidBy(`kubectl get pods -n foreign -o ${states}`, /"CrashLoopBackOff"/));
  t.diagnostic(await saidBy('kubectl logs -n foreign deployment/meshcert || true', /exec format error/));
  const doctor = await saidBy('kubectl meshcert doctor -n foreign || true', /0 of 1 pods are ready \(/);
  t.diagnostic(doctor);
  assert.match(doctor, /pods are ready \(CrashLoopBackOff, it ended with \w+, exit code \d+\)/);
});

test('a namespace that is being deleted fails by its own code, and those of other namespaces go on', {
  skip,
}, async (t) => {
  const certificate = (namespace: string, finalizers: readonly string[] = []) => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name: 'istio', namespace, finalizers },
    spec: { istio: { ca: { serviceAccount: 'default' } }, tlsContext: { enabled: false } },
  });
  await cluster.ensureNamespace('going');
  await cluster.ensureNamespace('staying');
  await shell.run(`kubectl create namespace agents
    helm install meshcert ${chart} -n agents --set observe=labels,allNamespaces=true \\
      --set allow.serviceAccounts={*/default},allow.audiences={istio-ca},allow.addresses={istiod.istio-system.svc:15012}`);
  // The finalizer of somebody else keeps the MeshCertificate while everything else in the namespace is deleted.
  await apply(cluster, certificate('going', ['example.com/hold']), certificate('staying'));
  await shell.run(`kubectl wait --for=condition=Ready mcert/istio -n going --timeout=2m
    kubectl wait --for=condition=Ready mcert/istio -n staying --timeout=2m
    kubectl delete namespace going --wait=false
    kubectl wait --for=delete secret/istio-identity -n going --timeout=1m`);
  const logs = await saidBy('kubectl logs -n agents deployment/meshcert --all-pods', /ERR_KUBE_TERMINATING/);
  t.diagnostic(/^.*ERR_KUBE_TERMINATING.*$/m.exec(logs)?.[0] ?? '');
  const renewed = await shell.run('PATH=$PWD:$PATH kubectl meshcert renew istio -n staying --wait');
  t.diagnostic(renewed);
  await shell.run(`kubectl patch mcert istio -n going --type merge -p '{"metadata":{"finalizers":null}}'
    kubectl wait --for=delete namespace/going --timeout=1m`);
});
