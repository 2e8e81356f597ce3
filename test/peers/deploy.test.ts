import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { parseDocuments } from '../../src/config/documents.ts';
import { rbacFor } from '../../src/config/rbac.ts';
import type { KubeObject } from '../../src/core/object.ts';
import { ambassadorDefinitions } from '../../src/sandbox/kube/ambassador.ts';
import { peer } from './build.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CHART = join(ROOT, 'deploy/helm/meshcert');
const run = promisify(execFile);

let server: KubeApiserver;
let helm: string;
let scratch: string;

before(async () => {
  [server, helm, scratch] = await Promise.all([
    startKubeApiserver(),
    peer('helm'),
    mkdtemp(join(tmpdir(), 'meshcert-deploy-')),
  ]);
  for (const namespace of ['emissary', 'linkerd', 'consul', 'mesh']) await server.ensureNamespace(namespace);
  await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
  await server.kubectl(['apply', '-f', '-'], {
    input: ambassadorDefinitions()
      .map((one) => stringify(one))
      .join('---\n'),
  });
  await server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
});

after(() => server?.stop());

const CERTIFICATES = [
  {
    name: 'istio',
    spec: {
      istio: { ca: { serviceAccount: 'gateway', root: { configMap: { namespace: 'mesh' } } } },
      configMapName: 'istio-roots',
      mappings: { selector: { matchLabels: { mesh: 'istio' } }, namespaces: ['*'] },
    },
  },
  { name: 'linkerd', spec: { linkerd: { serviceAccount: { name: 'gateway' } }, deletionPolicy: 'Delete' } },
  {
    name: 'consul',
    spec: {
      consul: {
        http: {
          address: 'https://consul-server.consul.svc:8501',
          tls: { ca: { configMap: { name: 'consul-ca', namespace: 'consul' } } },
        },
        auth: { login: { method: 'kubernetes', serviceAccount: 'gateway' } },
      },
      caSecretName: 'roots-of-consul',
      tlsContext: { enabled: false },
    },
  },
  {
    name: 'socket',
    spec: { istio: { sds: {} }, secretName: 'pair', mappings: { selector: { matchLabels: { a: 'b' } } } },
  },
];

/** What `helm template` makes of these values. */
async function template(values: object): Promise<{ text: string; objects: KubeObject[] }> {
  const file = join(scratch, `${Math.random()}.yaml`);
  await writeFile(file, stringify(values));
  const args = ['template', 'edge', CHART, '--namespace', 'emissary', '--kube-version', '1.34.2', '-f', file];
  const { stdout } = await run(helm, args, { maxBuffer: 16 * 1024 * 1024 });
  const objects = parseAllDocuments(stdout).flatMap((one) => (one.contents === null ? [] : [one.toJS() as KubeObject]));
  return { text: stdout, objects };
}

const kinds = (objects: readonly KubeObject[]) => [...new Set(objects.map(({ kind }) => kind))].sort();

interface Rule {
  apiGroups: string[];
  resources: string[];
  resourceNames?: string[];
  verbs: string[];
}

/** Every single permission, as text: where, what, which, how. */
function permissions(objects: readonly KubeObject[]): string[] {
  const all = new Set<string>();
  for (const { kind, metadata, rules } of objects) {
    if (!kind.endsWith('Role')) continue;
    for (const rule of rules as Rule[]) {
      for (const group of rule.apiGroups) {
        for (const resource of rule.resources) {
          for (const name of rule.resourceNames ?? ['*']) {
            for (const verb of rule.verbs) {
              all.add(`${metadata.namespace ?? '*'} ${verb} ${group}/${resource} ${name}`);
            }
          }
        }
      }
    }
  }
  return [...all].sort();
}

test('the chart passes helm lint', async () => {
  const file = join(scratch, 'lint.yaml');
  await writeFile(file, stringify({ certificates: CERTIFICATES, serviceMonitor: { enabled: true } }));
  await run(helm, ['lint', '--strict', '--kube-version', '1.34.2', '-f', file, CHART]);
});

test("the chart's roles grant exactly what render --rbac says, for documents and for resources", async () => {
  const text = CERTIFICATES.map(({ name, spec }) =>
    stringify({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name, namespace: 'emissary' },
      spec,
    }),
  ).join('---\n');
  const { documents, errors } = parseDocuments(text, 'values', adapters);
  assert.deepEqual(errors, []);
  for (const source of ['resources', 'file']) {
    for (const shards of [1, 3]) {
      const { objects } = await template({ certificates: CERTIFICATES, source, shards });
      const wanted = rbacFor(documents, {
        name: 'x',
        serviceAccount: { name: 'x', namespace: 'emissary' },
        leaseName: 'meshcert',
        shards,
        resources: source === 'resources',
      });
      assert.deepEqual(permissions(objects), permissions(wanted), `${source}, ${shards}`);
    }
  }
});

test('every mode and source is taken by the API server', async () => {
  for (const mode of ['deployment', 'daemonset', 'sidecar']) {
    for (const source of ['resources', 'file']) {
      const values = {
        mode,
        source,
        certificates: CERTIFICATES,
        socketDirectory: mode === 'daemonset' ? '/run/spire' : '',
        tokens: [{ path: 'istio', audience: 'istio-ca' }],
      };
      const { text } = await template(values);
      await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: text });
    }
  }
});

test('many namespaces take a wider role, which is said and not given by accident', async () => {
  await assert.rejects(template({ watchNamespaces: ['shop'] }), /need observe: labels/);
  const some = await template({ observe: 'labels', watchNamespaces: ['mesh'] });
  await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: some.text });
  assert.ok(permissions(some.objects).includes('mesh list /secrets *'));
  assert.ok(!permissions(some.objects).includes('* list /secrets *'));
  const all = await template({ observe: 'labels', allNamespaces: true });
  await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: all.text });
  assert.ok(permissions(all.objects).includes('* list /secrets *'));
  assert.match(all.text, /^ +- --all-namespaces$/m);
});

test('a mode makes what belongs to it', async () => {
  const deployment = kinds((await template({ certificates: CERTIFICATES })).objects);
  for (const kind of [
    'Deployment',
    'PodDisruptionBudget',
    'NetworkPolicy',
    'Service',
    'ServiceAccount',
    'MeshCertificate',
  ]) {
    assert.ok(deployment.includes(kind), kind);
  }
  const daemonset = kinds((await template({ mode: 'daemonset', source: 'file' })).objects);
  assert.ok(daemonset.includes('DaemonSet') && daemonset.includes('ConfigMap'));
  assert.ok(!daemonset.includes('PodDisruptionBudget') && !daemonset.includes('MeshCertificate'));
  const sidecar = kinds((await template({ mode: 'sidecar', serviceAccount: { name: 'gateway' } })).objects);
  assert.deepEqual(sidecar, ['Role', 'RoleBinding']);
  const monitored = await template({ serviceMonitor: { enabled: true }, prometheusRule: { enabled: true } });
  assert.ok(kinds(monitored.objects).includes('ServiceMonitor') && kinds(monitored.objects).includes('PrometheusRule'));
});

test('the container may do nothing that it does not need', async () => {
  const { objects } = await template({});
  const workload = objects.find(({ kind }) => kind === 'Deployment') as unknown as {
    spec: { template: { spec: { securityContext: object; containers: { securityContext: object }[] } } };
  };
  const { securityContext, containers } = workload.spec.template.spec;
  assert.deepEqual(containers[0]?.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    runAsNonRoot: true,
    runAsUser: 65532,
    runAsGroup: 65532,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  });
  assert.deepEqual(securityContext, { runAsNonRoot: true, fsGroup: 65532, seccompProfile: { type: 'RuntimeDefault' } });
});

test("the README's first values give the agent the rights to the Secrets that they make it write", async () => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const [, block = ''] = /mesh-values\.yaml`:\n\n {3}```yaml\n([\s\S]*?) {3}```/.exec(readme) ?? [];
  const { objects } = await template(parse(block));
  assert.ok(kinds(objects).includes('MeshCertificate'));
  const given = permissions(objects);
  for (const secret of ['istio-ca', 'istio-identity']) {
    for (const verb of ['get', 'list', 'watch', 'patch'])
      assert.ok(given.includes(`emissary ${verb} /secrets ${secret}`));
  }
});

test('replicas can be spread and given a priority', async () => {
  const spread = { maxSkew: 1, topologyKey: 'topology.kubernetes.io/zone', whenUnsatisfiable: 'ScheduleAnyway' };
  const { objects } = await template({ priorityClassName: 'high', topologySpreadConstraints: [spread] });
  const deployment = objects.find(({ kind }) => kind === 'Deployment');
  const { template: pod } = (deployment?.spec ?? {}) as { template?: { spec: Record<string, unknown> } };
  assert.deepEqual([pod?.spec.priorityClassName, pod?.spec.topologySpreadConstraints], ['high', [spread]]);
});

test('values that mean nothing are refused before anything is installed', async () => {
  for (const values of [
    { mode: 'pod' },
    { replica: 2 },
    { certificates: [{ name: 'a.b', spec: {} }] },
    { certificates: [{ name: 'x', spec: { istio: { sds: {} }, consul: { http: { address: 'http://c:1' } } } }] },
    { certificates: [{ name: 'x', spec: { istio: { sds: {} }, trust: { hodl: '1m' } } }] },
  ]) {
    await assert.rejects(
      template(values),
      /values don't meet the specifications of the schema/,
      JSON.stringify(values),
    );
  }
});

test('each kustomize overlay is taken by the API server', async () => {
  for (const overlay of ['deployment', 'daemonset', 'sidecar']) {
    const text = await server.kubectl(['kustomize', join(ROOT, 'deploy/kustomize/overlays', overlay)]);
    await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: text });
  }
});
