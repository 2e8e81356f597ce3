import assert from 'node:assert/strict';
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { ROOT } from '../../scripts/tree.ts';
import { eventually } from '../peers/parts/eventually.ts';
import { noCluster } from './cluster.ts';
import { imageName } from './images.ts';
import { type Life, startLife, VALUES } from './life.ts';
import { noHistory, type PreviousRelease, previousRelease } from './previous.ts';

const skip = noCluster() || noHistory();
const DEFINITION = join(ROOT, 'deploy/crd/meshcertificate.yaml');

let life: Life;
let previous: PreviousRelease;

before(async () => {
  if (skip) return;
  previous = await previousRelease();
  const install = `helm install meshcert ${previous.chart} -n emissary --wait -f ${VALUES} --set image.tag=previous
    kubectl wait --for=condition=Ready mcert/istio -n emissary --timeout=2m`;
  life = await startLife(() => install, 'previous');
  await symlink(await builtBundle(), join(life.world.shell.dir, 'kubectl-meshcert'));
});
after(() => life?.[Symbol.asyncDispose]());

const agents = (): Promise<string> =>
  life.user('kubectl logs -n emissary -l app.kubernetes.io/name=meshcert --prefix --tail=-1');

/** The image of the agent that writes, once it is this one. */
const written = (image: string): Promise<void> =>
  eventually(`a writer with the image ${image}`, async () => {
    const pod = await life.writer();
    return (await life.get(`pod ${pod} -o jsonpath={.spec.containers[0].image}`)) === image;
  });

/** A definition of the same name, applied as docs/upgrade.md says. */
const applyDefinition = (file: string): Promise<string> =>
  life.user(`kubectl apply --server-side --force-conflicts -f ${file}
    kubectl wait --for=condition=Established crd/meshcertificates.meshcert.dev --timeout=30s`);

const upgrade = (more = ''): Promise<string> =>
  life.user(`helm upgrade meshcert ${life.world.chart} -n emissary --wait -f ${VALUES} ${more}`);

test('0.1.0 with the definition of today: nothing changes', { skip }, async (t) => {
  const spec = () => life.get('mcert istio -o jsonpath={.spec}');
  const before = await spec();
  await applyDefinition(DEFINITION);
  assert.equal(await spec(), before, 'an old agent would refuse fields that the new definition adds');
  t.diagnostic(`next write after ${await life.nextWrite()} ms`);
  t.diagnostic(await life.unharmed());
});

test('helm upgrade from 0.1.0: the new agents continue with what it published', { skip }, async (t) => {
  const uids = () => life.get("secrets istio-ca istio-identity -o jsonpath='{.items[*].metadata.uid}'");
  const before = await uids();
  const start = performance.now();
  await upgrade();
  t.diagnostic(`helm upgrade took ${Math.round(performance.now() - start)} ms`);
  await written(imageName('meshcert'));
  t.diagnostic(`next write after ${await life.nextWrite()} ms`);
  assert.equal(await uids(), before, 'a Secret was made again');
  assert.match(await life.user('helm test meshcert -n emissary'), /Phase: +Succeeded/);
  assert.doesNotMatch(await agents(), /ERR_/);
  t.diagnostic(await life.unharmed());
});

test('helm rollback to 0.1.0, with the new definition: the old agents rotate again', { skip }, async (t) => {
  await life.user('helm rollback meshcert 1 -n emissary --wait');
  await written(imageName('previous'));
  t.diagnostic(`next write after ${await life.nextWrite()} ms`);
  assert.doesNotMatch(await agents(), /ERR_/);
  t.diagnostic(await life.unharmed());
});

test('new agents with the definition of 0.1.0: they rotate, and say what to apply', { skip }, async (t) => {
  await applyDefinition(previous.definition);
  await upgrade();
  t.diagnostic(`next write after ${await life.nextWrite()} ms`);
  let said = '';
  // A status is written after the Secrets, which is what the next write was.
  await eventually('the refused status', async () => {
    said = /^.*ERR_KUBE_INVALID.*$/m.exec(await agents())?.[0] ?? '';
    return said !== '';
  });
  t.diagnostic(said);
  // The API server names one of the fields that 0.1.0 did not have.
  assert.match(said, /\.status\.\w+: field not declared in schema/);
  assert.match(said, /CustomResourceDefinition meshcertificates\.meshcert\.dev/);
  const doctor = await life.user('PATH=$PWD:$PATH kubectl meshcert doctor -n emissary || true');
  t.diagnostic(doctor);
  assert.match(doctor, /meshcertificates\.meshcert\.dev/);
  await applyDefinition(DEFINITION);
  await life.user('kubectl wait --for=jsonpath={.status.observedGeneration}=1 mcert/istio -n emissary --timeout=2m');
  t.diagnostic(await life.unharmed());
});

test('helm uninstall after offboard leaves the Secrets, and nothing that refers to them', { skip }, async (t) => {
  await life.load.stop();
  t.diagnostic(await life.unharmed());
  t.diagnostic(await life.user('PATH=$PWD:$PATH kubectl meshcert offboard istio -n emissary --yes'));
  await life.user('helm uninstall meshcert -n emissary --wait');
  const left = await life.get(
    'secrets,tlscontexts,mappings,mcert,deployments,leases,roles,networkpolicies,pdb -o name',
  );
  t.diagnostic(left);
  assert.doesNotMatch(left, /tlscontext|meshcertificate|deployment.*meshcert|role|networkpolicy|poddisruptionbudget/);
  assert.match(left, /^secret\/istio-identity$/m);
  assert.equal(await life.get('mapping web -o jsonpath={.spec.tls}'), '');
});
