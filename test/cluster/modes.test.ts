import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { parse } from 'yaml';
import { ROOT } from '../../scripts/tree.ts';
import { noCluster } from './cluster.ts';
import { imageName } from './images.ts';
import { GATEWAY } from './mesh/gateway.ts';
import { IDLE_FLAGS, idleEnvoy, injectedProxy, installNodeSocket } from './mesh/node-socket.ts';
import { apply, eventsAndLogs, rolledOut } from './mesh/objects.ts';
import { startWorld, type World } from './world.ts';

const skip = noCluster();
const { namespace } = GATEWAY;

let world: World;

before(async () => {
  if (skip) return;
  world = await startWorld();
  await apply(world.cluster, idleEnvoy(namespace));
  await installNodeSocket(world.cluster, { namespace, account: GATEWAY.account });
});
after(() => world?.[Symbol.asyncDispose]());

/** A mode publishes the same names as the next: each starts from nothing. */
const takeAway = (): Promise<string> =>
  user(`helm uninstall meshcert -n emissary --ignore-not-found --wait
    kubectl delete -n emissary mcert,tlscontext --all
    kubectl delete -n emissary secrets -l app.kubernetes.io/managed-by=meshcert
    kubectl delete -n emissary deployment/sidecar job/once --ignore-not-found`);
afterEach(async () => {
  if (!skip) await takeAway();
});

/** Runs a script of a user; when it fails, says what the pods say. */
const user = (script: string): Promise<string> =>
  world.shell.run(script).catch(async (error) => {
    throw new Error(`${error.message}\n${await eventsAndLogs(world.cluster, namespace)}`);
  });

const example = (name: string): string => join(ROOT, 'deploy/helm/examples', name);
const ready = (name: string): string => `kubectl wait --for=condition=Ready mcert/${name} -n emissary --timeout=2m`;
const install = (values: string): string => `helm install meshcert ${world.chart} -n emissary --wait -f ${values}`;

/** The SPIFFE ID in the published pair, as OpenSSL reads it. */
const published = (secret: string): Promise<string> =>
  user(`kubectl get secret ${secret} -n emissary -o jsonpath='{.data.tls\\.crt}' | base64 -d |
    openssl x509 -noout -ext subjectAltName`);

const GATEWAY_NAME = /URI:spiffe:\/\/cluster.local\/ns\/emissary\/sa\/emissary-ingress/;

test('daemonset: an agent on the node reads the socket of the node', { skip }, async () => {
  await user(install(example('spire-daemonset.yaml')));
  await user(ready('spire'));
  assert.match(await user('helm test meshcert -n emissary'), /Phase: +Succeeded/);
  assert.match(await published('spire-identity'), GATEWAY_NAME);
  assert.match(await user('kubectl get daemonset meshcert -n emissary'), /meshcert +1 +1 +1/);
});

test('source: file: the same without the definition and without custom resources', { skip }, async () => {
  await user(install(example('file.yaml')));
  await user('kubectl wait --for=create secret/istio-identity -n emissary --timeout=2m');
  assert.match(await user('helm test meshcert -n emissary'), /Phase: +Succeeded/);
  assert.match(await published('istio-identity'), GATEWAY_NAME);
});

test('sidecar: the container that the notes print, in the pod of the gateway', { skip }, async () => {
  const notes = await user(install(example('istio-sidecar.yaml')));
  const [, printed = ''] = /\n(containers:\n[\s\S]*?)\n\n\n/.exec(`${notes}\n\n\n`) ?? [];
  const { containers, volumes } = parse(printed.split('\nThe Role names')[0] ?? '');
  await apply(world.cluster, gatewayWith('sidecar', containers, volumes));
  await rolledOut(world.cluster, namespace, 'sidecar');
  await user(ready('istio'));
  assert.match(await published('istio-identity'), GATEWAY_NAME);
});

test('a Job publishes once and ends', { skip }, async () => {
  await user(install(`${example('istio.yaml')} --set replicas=0`));
  await apply(world.cluster, {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'once', namespace },
    spec: {
      backoffLimit: 0,
      template: {
        spec: {
          serviceAccountName: 'meshcert',
          restartPolicy: 'Never',
          containers: [
            { name: 'once', image: imageName('meshcert'), args: ['agent', '--once', '--namespace=emissary'] },
          ],
        },
      },
    },
  });
  await user('kubectl wait --for=condition=Complete job/once -n emissary --timeout=2m');
  await user(ready('istio'));
  assert.match(await published('istio-identity'), GATEWAY_NAME);
});

test('kustomize: each overlay as it is in the repository', { skip }, async () => {
  await user(`kubectl apply --server-side --force-conflicts -k ${ROOT}/deploy/crd
    kubectl wait --for=condition=Established crd/meshcertificates.meshcert.dev --timeout=30s`);
  for (const overlay of ['deployment', 'daemonset']) {
    const path = `${ROOT}/deploy/kustomize/overlays/${overlay}`;
    await user(`kubectl apply -k ${path}`);
    await rolledOut(world.cluster, namespace, `${overlay}/meshcert`);
    await user(ready('istio'));
    assert.match(await published('istio-identity'), GATEWAY_NAME);
    await user(`kubectl delete -k ${path} --wait`);
    await takeAway();
  }
});

test('kustomize: the overlay for a sidecar, with the gateway and the proxy that Istio injects', { skip }, async () => {
  const dir = join(world.shell.dir, 'sidecar');
  await mkdir(dir);
  const overlay = relative(dir, join(ROOT, 'deploy/kustomize/overlays/sidecar'));
  // The gateway's own container, which the image of the tests must be eventsAndLogs what to do.
  const ambassador = {
    name: 'ambassador',
    args: IDLE_FLAGS,
    volumeMounts: [{ name: 'istio-envoy', mountPath: '/etc/proxy' }],
  };
  await writeFile(join(dir, 'injected.yaml'), JSON.stringify(gatewayWith(GATEWAY.account, [ambassador], [])));
  await writeFile(
    join(dir, 'kustomization.yaml'),
    JSON.stringify({ resources: [overlay], patches: [{ path: 'injected.yaml' }] }),
  );
  await user(`kubectl delete deployment ${GATEWAY.account} -n emissary --wait
    kubectl apply -k ${dir}`);
  await rolledOut(world.cluster, namespace, GATEWAY.account);
  await user(ready('istio'));
  assert.match(await published('istio-identity'), GATEWAY_NAME);
  await user(`kubectl delete -k ${dir} --wait`);
});

/** A Deployment with what Istio injects, under the user of Istio's proxy, and further containers. */
function gatewayWith(name: string, containers: readonly object[], more: readonly { name: string }[]): object {
  const labels = { 'app.kubernetes.io/name': name };
  const { container, volumes } = injectedProxy();
  const own = (volumes as { name: string }[]).filter((volume) => !more.some((one) => one.name === volume.name));
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace },
    spec: {
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          serviceAccountName: GATEWAY.account,
          securityContext: { fsGroup: 1337 },
          containers: [{ ...container, securityContext: { runAsUser: 1337, runAsGroup: 1337 } }, ...containers],
          volumes: [...own, ...more],
        },
      },
    },
  };
}
