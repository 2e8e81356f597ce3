import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { doctorReport } from '../doctor/run-doctor.ts';
import { say } from '../support/io.ts';
import { NEWEST } from './build.ts';
import { startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type Istiod, startIstiod, TRUST_BUNDLE } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver, TRUST_BUNDLES } from './servers/kube-apiserver.ts';

const MINUTE = 60_000;
const NAMESPACE = 'emissary';
const USER = 'system:serviceaccount:emissary:meshcert';
const PUBLISHED = { namespace: NAMESPACE, identity: 'mesh-identity', ca: 'mesh-ca' };
const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';

describe('Istio whose root is a ClusterTrustBundle', () => {
  let apiserver: KubeApiserver;
  let istiod: Istiod;
  let kube: Kube;

  before(async () => {
    apiserver = await startKubeApiserver({ args: TRUST_BUNDLES });
    await prepareCluster(apiserver, { [NAMESPACE]: ['gateway', 'meshcert'], 'istio-system': [] });
    // Kubernetes lets every ServiceAccount read ClusterTrustBundles; without that, our own Role must suffice.
    const binding = '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:cluster-trust-bundle-discovery';
    assert.equal((await apiserver.call('DELETE', binding)).status, 200);
    istiod = await startIstiod({ apiserver, env: { ENABLE_CLUSTER_TRUST_BUNDLE_API: 'true' } });
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  });
  after(async () => {
    kube?.close();
    await istiod?.stop();
    await apiserver?.stop();
  });

  const document = (root: object): string => {
    const { secureAddress: address, serverName } = istiod;
    const ca = { address, serverName, serviceAccount: 'gateway', root };
    return `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: ${NAMESPACE}}
spec:
  istio: {ca: ${JSON.stringify(ca)}}
  trust: {hold: 1s}
`;
  };

  it('is joined from the API server with the Roles of render --rbac, through a lost bundle and a new root', async () => {
    const documents = join(apiserver.dir, 'mesh.yaml');
    await writeFile(documents, document({ clusterTrustBundle: {} }));
    const roles = await say(['render', '--rbac', '-f', documents, '--namespace', NAMESPACE]);
    assert.equal(roles.code, 0, roles.stderr);
    await apiserver.kubectl(['apply', '-f', '-'], { input: roles.stdout });
    const account = { namespace: NAMESPACE, name: 'meshcert', audience: API_AUDIENCE };
    const kubeconfig = await apiserver.kubeconfigFor('meshcert', await apiserver.serviceAccountToken(account));

    await using pair = watchPair(kube, PUBLISHED);
    await using agent = await startAgentProcess({
      kubeconfig,
      documents: await readFile(documents, 'utf8'),
      args: ['--namespace', NAMESPACE, '--observe', 'names'],
    });
    const until = (holds: () => boolean, what: string) =>
      pair.until(holds, MINUTE, what).catch((error) => {
        throw new Error(`${error.message}\n${agent.log().slice(-6_000)}`);
      });
    await until(() => pair.leaves.length === 1, 'the leaf');
    await istiod.replaceRoot();
    const [root] = parseCertificates(await istiod.rootCertificate());
    await until(() => pair.bundles.at(-1)?.includes(root?.fingerprint ?? '') ?? false, 'the new root');
    assert.equal(pair.bundles.at(-1)?.length, 2, 'the old root is retained');
    await until(() => pair.leaves.length === 2, 'a leaf under the new root');
    assert.deepEqual(pair.violations, []);
    const requests = (await apiserver.audit()).filter(({ user }) => user.username === USER);
    assert.deepEqual(
      requests
        .filter(({ responseStatus }) => responseStatus?.code === 403)
        .map(({ verb, requestURI }) => `${verb} ${requestURI}`),
      [],
    );
    // istiod writes v1beta1; Kubernetes 1.37 serves the same object as v1 too.
    const versions = requests.flatMap(({ requestURI }) => /(v1\w*)\/clustertrustbundles\?/.exec(requestURI)?.[1] ?? []);
    assert.deepEqual([...new Set(versions)], [NEWEST ? 'v1' : 'v1beta1']);
  });

  it('is joined by the file that the kubelet makes of it, and writes no ConfigMap', async () => {
    const path = `/api/v1/namespaces/${NAMESPACE}/configmaps/istio-ca-root-cert`;
    assert.equal((await apiserver.call('GET', path)).status, 404);
    const { body } = await apiserver.call('GET', TRUST_BUNDLE);
    assert.equal(body?.spec?.signerName, 'istio.io/istiod-ca');

    // What a kubelet writes for a projected clusterTrustBundle.
    const file = join(istiod.dir, 'root-cert.pem');
    await writeFile(file, String(body?.spec?.trustBundle));
    await using agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: document({ file }).replace('name: mesh,', 'name: by-file,'),
      args: ['--namespace', NAMESPACE, '--no-leader-elect'],
    });
    await eventually(
      'the pair',
      async () =>
        (await apiserver.call('GET', `/api/v1/namespaces/${NAMESPACE}/secrets/by-file-identity`)).status === 200,
      agent.log,
    );
  });
});

describe('Kubernetes with its own defaults', { skip: !NEWEST && 'only Kubernetes 1.37 serves v1' }, () => {
  it('keeps istiod from writing the bundle, and the status names the flag that helps', async () => {
    await using apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { [NAMESPACE]: ['gateway'] });
    await using istiod = await startIstiod({
      apiserver,
      publishes: false,
      env: { ENABLE_CLUSTER_TRUST_BUNDLE_API: 'true' },
    });
    const refused = async () =>
      (await apiserver.audit()).some(
        ({ requestURI, responseStatus }) =>
          requestURI.includes('/v1beta1/clustertrustbundles') && responseStatus?.code === 404,
      );
    await eventually('the refused request of istiod', refused, istiod.log);

    const ca = { address: istiod.secureAddress, serviceAccount: 'gateway', root: { clusterTrustBundle: {} } };
    await using agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: JSON.stringify({
        apiVersion: 'meshcert.dev/v1alpha1',
        kind: 'MeshCertificate',
        metadata: { name: 'mesh', namespace: NAMESPACE },
        spec: { istio: { ca } },
      }),
      args: ['--namespace', NAMESPACE, '--no-leader-elect'],
    });
    const said = /ERR_MESH_CONFIG.*does not exist.*--runtime-config=certificates\.k8s\.io\/v1beta1/;
    await eventually('the reason', async () => said.test(JSON.stringify(await agent.statuses())), agent.log);
  });
});

describe('an API server without ClusterTrustBundles', () => {
  it('is named with the flags that serve them, by the status and by doctor', async () => {
    await using apiserver = await startKubeApiserver(
      NEWEST ? { args: ['--runtime-config=certificates.k8s.io/v1/clustertrustbundles=false'] } : {},
    );
    await prepareCluster(apiserver, { [NAMESPACE]: ['gateway'] });
    const ca = { address: '127.0.0.1:9', serviceAccount: 'gateway', root: { clusterTrustBundle: {} } };
    const mesh = {
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'mesh', namespace: NAMESPACE },
      spec: { istio: { ca } },
    };
    const said = /ERR_MESH_UNSUPPORTED.*does not serve ClusterTrustBundles/;
    await using agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: JSON.stringify(mesh),
      args: ['--namespace', NAMESPACE, '--no-leader-elect'],
    });
    await eventually('the reason', async () => said.test(JSON.stringify(await agent.statuses())), agent.log);

    const { stdout } = await say(['schema', '--crd']);
    await apiserver.kubectl(['apply', '--server-side', '-f', '-'], { input: stdout });
    await apiserver.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev']);
    await apiserver.kubectl(['apply', '-f', '-'], { input: JSON.stringify(mesh) });
    for (const flag of TRUST_BUNDLES) assert.ok(JSON.stringify(await agent.statuses()).includes(flag), flag);
    const { text } = await doctorReport(
      await readFile(apiserver.kubeconfigFile, 'utf8'),
      '-n',
      NAMESPACE,
      '--no-issue',
    );
    assert.match(text, /istio-root: ERR_MESH_UNSUPPORTED: the API server does not serve ClusterTrustBundles/);
  });
});
