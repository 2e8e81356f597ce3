import assert from 'node:assert/strict';
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { eventually } from '../peers/parts/eventually.ts';
import { discard, scratchDir } from '../peers/servers/process.ts';
import { type Cluster, noCluster, startCluster } from './cluster.ts';
import { openShell, packChart, type Shell } from './session.ts';

const skip = noCluster();

let cluster: Cluster;
let shell: Shell;
let chart: string;

before(async () => {
  if (skip) return;
  cluster = await startCluster({ images: ['meshcert'] });
  const dir = scratchDir('user');
  [shell, chart] = await Promise.all([openShell(cluster, dir), packChart(dir)]);
  await symlink(await builtBundle(), join(dir, 'kubectl-meshcert'));
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
  if (shell) discard(shell.dir);
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
  let said = '';
  await eventually(
    'the reason',
    async () => {
      said = await shell.run('PATH=$PWD:$PATH kubectl meshcert doctor -n missing || true');
      return /ErrImageNeverPull/.test(said);
    },
    () => said,
  );
  t.diagnostic(said);
  assert.match(said, /^error MC6006 Deployment missing\/meshcert\n {2}0 of 2 pods are ready \(ErrImageNeverPull\)/m);
  // This cluster has no gateway.
  assert.match(said, /^error MC6004 .*tlscontexts.*\n.*does not know getambassador\.io.*\n {2}fix: install/m);
});
