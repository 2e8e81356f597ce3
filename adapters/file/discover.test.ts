import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import type { ClusterObjects } from '../../src/mesh/cluster.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { discover } from './cluster.ts';
import { fileConfig } from './config.ts';

/** Objects of YAML; the Deployment `gateway` is the gateway's. */
function find(yaml: string, directories: ClusterObjects['directories'] = new Map()) {
  const objects = parseAllDocuments(yaml).map((document) => document.toJS() as KubeObject);
  const workloads = objects.filter(({ kind }) => kind === 'Deployment' || kind === 'DaemonSet');
  const found = discover.installations({
    workloads,
    gatewayWorkloads: workloads.filter(({ metadata }) => metadata.name === 'gateway'),
    configMaps: objects.filter(({ kind }) => kind === 'ConfigMap'),
    namespaces: [],
    services: [],
    certificates: new Map(),
    directories,
  });
  return found.map((one) => {
    const config = discover.configFor(one, 'gateway', []);
    fileConfig.parse(config);
    return {
      config,
      problem: one.problem,
      show: discover.show(one).join('; '),
      mounts: discover.mounts?.(one) ?? [],
      lastResort: one.lastResort === true,
    };
  });
}

const gateway = (spec: string, annotations = '') => `
kind: Deployment
metadata: {name: gateway, namespace: edge}
spec:
  template:
    metadata: {annotations: {${annotations}}}
    spec: ${spec}
`;
const CSI = '{name: certs, csi: {driver: spiffe.csi.cert-manager.io, readOnly: true}}';
const driver = (bundle: string, names = '') => `---
kind: DaemonSet
metadata: {name: cert-manager-csi-driver-spiffe, namespace: cert-manager}
spec:
  template:
    spec:
      containers:
        - name: node-driver-registrar
          image: registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.13.0
        - name: cert-manager-csi-driver-spiffe
          image: quay.io/jetstack/cert-manager-csi-driver-spiffe:v0.10.0
          args: ['--csi-driver-name=spiffe.csi.cert-manager.io', '--source-ca-bundle=${bundle}'${names}]
`;

describe('certificates in volumes of the gateway', () => {
  it('are found where csi-driver-spiffe writes them, with the volume that the agent needs', () => {
    const [found] = find(gateway(`{containers: [], volumes: [${CSI}]}`) + driver('/ca/ca.crt'));
    assert.deepEqual(found?.config, { directory: '/var/run/secrets/meshcert/certs', layout: 'tls' });
    assert.deepEqual(found?.mounts, [
      {
        volume: { name: 'certs', csi: { driver: 'spiffe.csi.cert-manager.io', readOnly: true } },
        mountPath: '/var/run/secrets/meshcert/certs',
      },
    ]);
    assert.equal(found?.problem, undefined);
    assert.equal(found?.lastResort, true);
  });

  it('have the names that the driver gives them, and a problem where it writes no roots', () => {
    const names = `, '--file-name-certificate=leaf.pem', '--file-name-key=leaf.key', '--file-name-ca=roots.pem'`;
    const [found] = find(gateway(`{containers: [], volumes: [${CSI}]}`) + driver('', names));
    const at = '/var/run/secrets/meshcert/certs';
    assert.deepEqual(found?.config, {
      ...{ certificate: `${at}/leaf.pem`, key: `${at}/leaf.key` },
      bundle: `${at}/roots.pem`,
    });
    assert.match(found?.problem ?? '', /writes no roots/);
  });

  it('are found in a projected PodCertificate, in one file or in two, with the roots beside it', () => {
    const pod = (paths: string, roots = '') =>
      find(
        gateway(`{volumes: [{name: pod, projected: {sources: [
          {podCertificate: {signerName: example.com/mesh, keyType: ECDSAP256, ${paths}}}${roots}]}}]}`),
      )[0];
    const roots = ', {clusterTrustBundle: {signerName: example.com/mesh, path: roots.pem}}';
    const at = '/var/run/secrets/meshcert/pod';
    const one = pod('credentialBundlePath: bundle.pem', roots);
    assert.deepEqual(one?.config, { credentialBundle: `${at}/bundle.pem`, bundle: `${at}/roots.pem` });
    assert.match(one?.show ?? '', /^a PodCertificate of example\.com\/mesh, volume pod of Deployment edge\/gateway/);
    const two = pod('keyPath: key.pem, certificateChainPath: chain.pem', roots);
    assert.deepEqual(two?.config, {
      ...{ certificate: `${at}/chain.pem`, key: `${at}/key.pem`, bundle: `${at}/roots.pem` },
    });
    assert.match(pod('credentialBundlePath: bundle.pem')?.problem ?? '', /add a clusterTrustBundle/);
  });

  const SHARED = '{name: istio-certs, emptyDir: {medium: Memory}}';
  it('are found where a sidecar of Istio writes them, injected or not', () => {
    const annotations = `proxy.istio.io/config: "proxyMetadata:\\n  OUTPUT_CERTS: /etc/istio-output-certs\\n",
      sidecar.istio.io/userVolumeMount: '[{"name": "istio-certs", "mountPath": "/etc/istio-output-certs"}]'`;
    const container = `{name: istio-proxy, env: [{name: OUTPUT_CERTS, value: /etc/istio-output-certs/mesh}],
      volumeMounts: [{name: istio-certs, mountPath: /etc/istio-output-certs}]}`;
    const [injected] = find(gateway(`{volumes: [${SHARED}]}`, annotations));
    const [own] = find(gateway(`{containers: [${container}], volumes: [${SHARED}]}`));
    assert.deepEqual(injected?.config, { directory: '/var/run/secrets/meshcert/istio-certs', layout: 'istio' });
    assert.deepEqual(own?.config, { directory: '/var/run/secrets/meshcert/istio-certs/mesh', layout: 'istio' });
    assert.match(injected?.show ?? '', /run the agent as a container of these pods/);
    assert.deepEqual(injected?.mounts, []);
    assert.deepEqual(find(gateway(`{volumes: [${SHARED}]}`)), []);
  });

  const HELPER = `{containers: [
      {name: helper, image: 'ghcr.io/spiffe/spiffe-helper:0.11.0', args: [-config, /run/helper/helper.conf],
       volumeMounts: [{name: config, mountPath: /run/helper}, {name: svids, mountPath: /svids}]}],
      volumes: [{name: config, configMap: {name: helper}}, {name: svids, emptyDir: {}}]}`;
  const helperConfig = (lines: string) => `---
kind: ConfigMap
metadata: {name: helper, namespace: edge}
data:
  helper.conf: '${lines}'
`;
  it('are found where spiffe-helper writes them, by its configuration', () => {
    const usual = helperConfig(
      'cert_dir = "/svids" svid_file_name = "svid.pem" svid_key_file_name = "svid_key.pem" svid_bundle_file_name = "svid_bundle.pem"',
    );
    const [found] = find(gateway(HELPER) + usual);
    assert.deepEqual(found?.config, { directory: '/var/run/secrets/meshcert/svids', layout: 'spiffe-helper' });
    const [named] = find(
      gateway(HELPER) +
        helperConfig(
          '{"cert_dir": "/svids/x", "svid_file_name": "a", "svid_key_file_name": "b", "svid_bundle_file_name": "c"}',
        ),
    );
    const at = '/var/run/secrets/meshcert/svids/x';
    assert.deepEqual(named?.config, { certificate: `${at}/a`, key: `${at}/b`, bundle: `${at}/c` });
    assert.deepEqual(find(gateway(HELPER)), []);
    const [workload] = [gateway(HELPER)].map((yaml) => parseAllDocuments(yaml)[0]?.toJS() as KubeObject);
    assert.ok(workload);
    assert.deepEqual(
      discover.reads({ workloads: [], gatewayWorkloads: [workload] }).map(({ namespace, name }) => [namespace, name]),
      [['edge', 'helper']],
    );
  });

  it('are taken from where the agent has them already', () => {
    const [found] = find(`
kind: Deployment
metadata: {name: meshcert, namespace: edge}
spec:
  template:
    spec:
      containers:
        - name: meshcert
          image: ghcr.io/meshcert/meshcert:test
          args: [agent]
          volumeMounts: [{name: certs, mountPath: /var/run/secrets/meshcert/mesh/}]
      volumes: [${CSI}]
`);
    assert.deepEqual(found?.config, { directory: '/var/run/secrets/meshcert/mesh', layout: 'tls' });
    assert.deepEqual([found?.mounts, found?.show.includes('must be mounted')], [[], false]);
  });
});

describe('a directory that the user names', () => {
  const given = (path: string, names?: readonly string[]) => find('', new Map([[path, names]]))[0];

  it('has the layout of the files in it', () => {
    const istio = ['cert-chain.pem', 'key.pem', 'root-cert.pem', 'other'];
    const path = '/var/run/secrets/meshcert/certs';
    assert.deepEqual(given(path, istio)?.config, { directory: path, layout: 'istio' });
    assert.deepEqual(given(path, istio)?.show, `directory ${path}`);
    assert.equal(given(path, istio)?.lastResort, false);
    assert.match(given(path, ['x.pem'])?.problem ?? '', /no known layout; name them with --set/);
  });

  it('is proposed with the usual layout where it cannot be seen', () => {
    const found = given('/certs');
    assert.deepEqual([found?.config, found?.problem], [{ directory: '/certs' }, undefined]);
    assert.match(found?.show ?? '', /layout tls is assumed.*--files-below=\/certs/);
  });
});
