import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { parseDocuments } from '../../src/config/documents.ts';
import { rbacFor } from '../../src/config/rbac.ts';
import { gateways } from '../../src/gateways.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
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

const SELECTED = { selector: { matchLabels: { mesh: 'istio' } } };

const CERTIFICATES = [
  {
    name: 'istio',
    spec: {
      istio: { ca: { serviceAccount: 'gateway', root: { configMap: { namespace: 'mesh' } } } },
      configMapName: 'istio-roots',
      mappings: { selector: { matchLabels: { mesh: 'istio' } }, namespaces: ['*'] },
    },
  },
  {
    name: 'bundle',
    spec: { istio: { ca: { serviceAccount: 'gateway', root: { clusterTrustBundle: {} } } } },
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
    spec: {
      istio: { sds: {} },
      secretName: 'pair',
      mappings: { selector: { matchLabels: { a: 'b' } } },
      upstreams: { serviceAccounts: true },
    },
  },
  {
    name: 'routes',
    spec: {
      istio: { sds: {} },
      gatewayApi: { gateways: SELECTED, services: { ...SELECTED, namespaces: ['mesh', 'linkerd'] } },
    },
  },
  {
    name: 'backends',
    spec: {
      istio: { sds: {} },
      gatewayApi: { clientCertificate: 'Backend', backends: { ...SELECTED, namespaces: ['mesh'] } },
    },
  },
  {
    name: 'elsewhere',
    spec: {
      istio: { sds: {} },
      gatewayApi: {
        ...{ gateways: { ...SELECTED, namespaces: ['mesh', 'linkerd'] }, clientCertificate: 'Gateway' },
        ...{ services: SELECTED, backends: { ...SELECTED, namespaces: ['consul'] } },
      },
    },
  },
  {
    name: 'by-default',
    spec: { istio: { sds: {} }, gatewayApi: { backends: { ...SELECTED, namespaces: ['mesh'] } } },
  },
  {
    name: 'looking',
    spec: {
      istio: { sds: {} },
      gatewayApi: {
        ...{ gateways: { ...SELECTED, namespaces: ['*', 'mesh'] }, clientCertificate: 'Gateway', services: SELECTED },
      },
    },
  },
  {
    name: 'everywhere',
    spec: {
      istio: { sds: {} },
      tlsContext: {},
      gatewayApi: {
        ...{ gateways: SELECTED, clientCertificate: 'Gateway', caConfigMapName: 'roots' },
        services: { ...SELECTED, namespaces: ['*'] },
      },
      deletionPolicy: 'Delete',
    },
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
  const { documents, errors } = parseDocuments(text, 'values', adapters, gateways);
  assert.deepEqual(errors, []);
  for (const source of ['resources', 'file']) {
    for (const shards of [1, 3]) {
      const { objects } = await template({ certificates: CERTIFICATES, source, shards });
      const wanted = rbacFor(documents, {
        adapters,
        gateways,
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

test('every mode and source is accepted by the API server', async () => {
  for (const mode of ['deployment', 'daemonset', 'sidecar']) {
    for (const source of ['resources', 'file']) {
      const values = {
        mode,
        source,
        serviceAccount: { name: mode === 'sidecar' ? 'gateway' : '' },
        certificates: CERTIFICATES,
        socketDirectory: mode === 'daemonset' ? '/run/spire' : '',
        tokens: [{ path: 'istio', audience: 'istio-ca' }],
      };
      const { text } = await template(values);
      await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: text });
    }
  }
});

test('many namespaces need a wider role, which is announced and not granted by accident', async () => {
  await assert.rejects(template({ watchNamespaces: ['shop'] }), /needs observe: labels/);
  const some = await template({ observe: 'labels', watchNamespaces: ['mesh'] });
  await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: some.text });
  assert.ok(permissions(some.objects).includes('mesh list /secrets *'));
  assert.ok(!permissions(some.objects).includes('* list /secrets *'));
  const all = await template({ observe: 'labels', allNamespaces: true });
  await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: all.text });
  assert.ok(permissions(all.objects).includes('* list /secrets *'));
  assert.match(all.text, /^ +- --all-namespaces$/m);
});

test('with observe: labels, tokens can be minted only for the allowed ServiceAccounts', async () => {
  const tokens = (objects: readonly KubeObject[]) =>
    permissions(objects).filter((one) => one.includes('serviceaccounts/token'));
  const none = await template({ observe: 'labels', watchNamespaces: ['mesh'] });
  assert.deepEqual(tokens(none.objects), []);
  const serviceAccounts = ['emissary/gateway', 'mesh/gateway', 'shop/*'];
  const some = await template({ observe: 'labels', watchNamespaces: ['mesh'], allow: { serviceAccounts } });
  assert.deepEqual(tokens(some.objects), [
    'emissary create /serviceaccounts/token gateway',
    'mesh create /serviceaccounts/token gateway',
    'shop create /serviceaccounts/token *',
  ]);
  const places = some.objects.filter(({ kind }) => kind === 'Role').map(({ metadata }) => metadata.namespace);
  assert.deepEqual(places.sort(), ['emissary', 'mesh', 'shop'], 'one Role for each namespace');
  const all = await template({ observe: 'labels', allNamespaces: true, allow: { serviceAccounts: ['*/gateway'] } });
  assert.deepEqual(tokens(all.objects), ['* create /serviceaccounts/token gateway']);
});

test('the agent is started with the allow-list of the values', async () => {
  const allow = {
    serviceAccounts: ['emissary/gateway', '*/edge'],
    audiences: ['istio-ca', 'https://kubernetes.default.svc.cluster.local'],
    addresses: ['istiod.istio-system.svc:15012', '[::1]:8502', 'unix:/run/spire/agent.sock'],
  };
  for (const mode of ['deployment', 'daemonset']) {
    const { objects, text } = await template({ mode, observe: 'labels', allow });
    await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: text });
    const workload = objects.find(({ kind }) => kind.toLowerCase() === mode);
    const spec = workload?.spec as { template: { spec: { containers: { args: string[] }[] } } } | undefined;
    const args = spec?.template.spec.containers[0]?.args ?? [];
    assert.deepEqual(
      args.filter((arg) => /^--(observe|allow-)/.test(arg)),
      [
        '--observe=labels',
        ...allow.serviceAccounts.map((one) => `--allow-service-account=${one}`),
        ...allow.audiences.map((one) => `--allow-audience=${one}`),
        ...allow.addresses.map((one) => `--allow-address=${one}`),
      ],
    );
  }
  await assert.rejects(template({ allow: { serviceAccounts: ['gateway'] } }), /serviceAccounts/);
});

test('a mode creates its own objects', async () => {
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

test('the alert on an absent agent names the scrape job of the release', async () => {
  for (const [changes, job] of [
    [{ serviceMonitor: { enabled: true } }, 'edge-meshcert'],
    [{ serviceMonitor: { enabled: true }, fullnameOverride: 'other' }, 'other'],
    [{ podMonitor: { enabled: true } }, 'emissary/edge-meshcert'],
    [{ prometheusRule: { enabled: true, job: 'gateways' } }, 'gateways'],
  ] as const) {
    const { objects } = await template({ prometheusRule: { enabled: true }, ...changes });
    const rule = objects.find(({ kind }) => kind === 'PrometheusRule') as unknown as {
      spec: { groups: { rules: { alert?: string; expr: string }[] }[] };
    };
    const absent = rule.spec.groups.flatMap(({ rules }) => rules).find(({ alert }) => alert === 'MeshcertAbsent');
    assert.equal(absent?.expr, `absent(meshcert_build_info{job="${job}"})`);
  }
});

test('the container has only the rights that it needs', async () => {
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

test('meaningless values are refused before anything is installed', async () => {
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

test('every optional value is accepted by the API server', async () => {
  const values = {
    certificates: CERTIFICATES,
    nameOverride: 'certs',
    commonLabels: { team: 'edge' },
    image: { digest: `sha256:${'a'.repeat(64)}` },
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1 } },
    revisionHistoryLimit: 2,
    livenessProbe: { httpGet: { path: '/healthz', port: 'http' }, periodSeconds: 5 },
    securityContext: { readOnlyRootFilesystem: true },
    podSecurityContext: { runAsNonRoot: true },
    service: { annotations: { a: 'b' } },
    podDisruptionBudget: { minAvailable: '50%' },
    dashboard: { enabled: true, annotations: { folder: 'mesh' } },
    extraObjects: [
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'one' }, data: { a: 'b' } },
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Release.Name }}-two"}\n',
    ],
  };
  const { text, objects } = await template(values);
  await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: text });
  const named = (kind: string) => objects.filter((one) => one.kind === kind).map(({ metadata }) => metadata.name);
  assert.deepEqual(named('Deployment'), ['edge-certs']);
  assert.deepEqual(named('ConfigMap').sort(), ['edge-certs-dashboard', 'edge-two', 'one']);
  const [deployment] = objects.filter(({ kind }) => kind === 'Deployment');
  assert.match(JSON.stringify(deployment), /"image":"[^":]+@sha256:a{64}"/);
  assert.match(text, /^ {4}team: edge$/m);
  const budget = objects.find(({ kind }) => kind === 'PodDisruptionBudget');
  assert.match(JSON.stringify(budget), /"minAvailable":"50%"/);

  const pods = await template({ podMonitor: { enabled: true, labels: { release: 'prom' } } });
  assert.ok(kinds(pods.objects).includes('PodMonitor') && !kinds(pods.objects).includes('ServiceMonitor'));
  const dashboard = objects.find(({ metadata }) => metadata.name === 'edge-certs-dashboard') as unknown as {
    data: Record<string, string>;
  };
  assert.ok(JSON.parse(dashboard.data['meshcert.json'] ?? '').panels.length > 5);
});

test('each example passes helm lint, and the API server accepts what it renders', async () => {
  const examples = join(ROOT, 'deploy/helm/examples');
  for (const name of readdirSync(examples)) {
    await run(helm, ['lint', '--strict', '--kube-version', '1.34.2', '-f', join(examples, name), CHART]);
    const { objects } = await template(parse(readFileSync(join(examples, name), 'utf8')) as object);
    // The definitions of the Prometheus operator are not installed.
    const known = objects.filter(({ apiVersion }) => !apiVersion.startsWith('monitoring.coreos.com/'));
    assert.ok(known.length > 0, name);
    const input = known.map((one) => stringify(one)).join('---\n');
    await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input });
  }
});

/** Values that contradict each other, and what Helm must say of them. */
const CONTRADICTIONS: readonly (readonly [object, RegExp])[] = [
  [{ mode: 'sidecar' }, /mode: sidecar needs serviceAccount.name/],
  [{ socketDirectory: '/run/spire' }, /socketDirectory is a directory of the node, for mode: daemonset/],
  [{ mode: 'daemonset', shards: 2 }, /shards: 2 needs mode: deployment/],
  [{ podMonitor: { enabled: true }, serviceMonitor: { enabled: true } }, /would scrape each pod twice/],
  [{ mode: 'sidecar', serviceAccount: { name: 'g' }, podMonitor: { enabled: true } }, /no pods or Services to scrape/],
  [
    { mode: 'sidecar', serviceAccount: { name: 'g' }, prometheusRule: { enabled: true } },
    /needs prometheusRule.job: the job/,
  ],
  [{ networkPolicy: { enabled: false, egress: [{}] } }, /restrict nothing with networkPolicy.enabled: false/],
  [{ networkPolicy: { enabled: false, ingressFrom: [{ podSelector: {} }] } }, /restrict nothing/],
  [{ admissionPolicy: { validationActions: ['Deny', 'Warn'] } }, /validationActions: Deny and Warn exclude each other/],
  [{ admissionPolicy: { validationActions: ['Audit', 'Audit'] } }, /validationActions "Audit" is there twice/],

  [{ allNamespaces: true }, /allNamespaces needs observe: labels/],
  [{ watchNamespaces: ['shop'], rbac: { create: false } }, /watchNamespaces needs observe: labels/],
  [{ observe: 'labels', source: 'file', allNamespaces: true }, /allNamespaces needs source: resources/],
  [{ observe: 'labels', source: 'file', watchNamespaces: ['shop'] }, /watchNamespaces needs source: resources/],
  [{ observe: 'labels', allNamespaces: true, watchNamespaces: ['shop'] }, /set one of them/],
  [{ gatewayApi: true }, /gatewayApi: true is for observe: labels/],

  [{ certificates: [CERTIFICATES[0], CERTIFICATES[0]] }, /certificates: the name "istio" is there twice/],
  [
    { certificates: [CERTIFICATES[0], { name: 'b', spec: { istio: { sds: {} }, secretName: 'istio-ca' } }] },
    /certificates: the Secret "istio-ca" is there twice/,
  ],
  [
    { certificates: [{ name: 'a', spec: { istio: { sds: {} }, trust: { crl: true }, crlSecretName: 'a-identity' } }] },
    /certificates: the Secret "a-identity" is there twice/,
  ],

  [{ podDisruptionBudget: { minAvailable: 2 } }, /minAvailable: 2 with replicas: 2 lets no pod be evicted/],
  [{ replicas: 3, podDisruptionBudget: { minAvailable: '100%' } }, /minAvailable: 100% with replicas: 3/],
  [{ podDisruptionBudget: { maxUnavailable: 0 } }, /maxUnavailable: 0 lets no pod be evicted/],
  [{ podDisruptionBudget: { maxUnavailable: '0%' } }, /maxUnavailable: 0% lets no pod be evicted/],
  [
    { updateStrategy: { type: 'OnDelete' } },
    /OnDelete does not exist with mode: deployment; use RollingUpdate or Recreate/,
  ],
  [{ mode: 'daemonset', updateStrategy: { type: 'Recreate' } }, /use RollingUpdate or OnDelete/],
  [
    { updateStrategy: { type: 'Recreate', rollingUpdate: { maxSurge: 1 } } },
    /updateStrategy.rollingUpdate is for type: RollingUpdate/,
  ],

  [
    { extraArgs: ['--observe=labels'] },
    /the chart sets --observe by itself, and the Role with it; use the value observe/,
  ],
  [{ extraArgs: ['--allow-address', 'a:1'] }, /use the value allow.addresses/],
  [{ extraArgs: ['--namespace=other'] }, /the chart sets --namespace by itself: the namespace of the release/],
  [{ extraEnv: [{ name: 'POD_NAME', value: 'x' }] }, /extraEnv: the variable "POD_NAME" is set by the chart itself/],
  [{ extraEnv: [{ name: 'A' }, { name: 'A' }] }, /extraEnv: the variable "A" is there twice/],
  [{ source: 'file', extraVolumes: [{ name: 'config', emptyDir: {} }] }, /the volume "config" is set by the chart/],
  [
    { extraVolumeMounts: [{ name: 'certs', mountPath: '/certs' }] },
    /there is no volume "certs"; add it to extraVolumes/,
  ],
  [
    {
      tokens: [{ path: 'istio', audience: 'istio-ca' }],
      extraVolumes: [{ name: 'a', emptyDir: {} }],
      extraVolumeMounts: [{ name: 'a', mountPath: '/var/run/secrets/meshcert' }],
    },
    /the path "\/var\/run\/secrets\/meshcert" is set by the chart/,
  ],
  [
    {
      tokens: [
        { path: 'a', audience: 'b' },
        { path: 'a', audience: 'c' },
      ],
    },
    /tokens: the path "a" is there twice/,
  ],
  [
    { podLabels: { 'app.kubernetes.io/name': 'x' } },
    /podLabels: the label "app.kubernetes.io\/name" is set by the chart/,
  ],
  [{ podLabels: { 'sidecar.istio.io/inject': 'true' } }, /"sidecar.istio.io\/inject" is set by the chart/],
  [{ commonLabels: { 'helm.sh/chart': 'x' } }, /commonLabels: the label "helm.sh\/chart" is set by the chart/],
  [{ commonLabels: { team: 'a' }, podLabels: { team: 'b' } }, /podLabels: the label "team" is there twice/],
  [{ podAnnotations: { 'linkerd.io/inject': 'enabled' } }, /podAnnotations: the annotation "linkerd.io\/inject"/],
  [
    { serviceAccount: { create: false, annotations: { a: 'b' } } },
    /serviceAccount.annotations need serviceAccount.create: true/,
  ],

  [{ securityContext: { runAsUser: 0 } }, /runAsUser: 0 is root, which runAsNonRoot: true forbids/],
  [{ securityContext: { privileged: true } }, /privileged: true needs allowPrivilegeEscalation: true/],
  [{ securityContext: { capabilities: { add: ['SYS_ADMIN'] } } }, /SYS_ADMIN needs allowPrivilegeEscalation: true/],
  [{ resources: { requests: { memory: '1Gi' } } }, /requests.memory: 1Gi is more than resources.limits.memory: 256Mi/],
  [{ resources: { requests: { cpu: 2 }, limits: { cpu: '1500m' } } }, /requests.cpu: 2 is more than/],
];

test('values that contradict each other are refused with the names of the values', async () => {
  for (const [values, message] of CONTRADICTIONS) {
    await assert.rejects(template(values), message, `accepted: ${JSON.stringify(values)}`);
  }
});

test('values that only look contradictory are accepted', async () => {
  for (const values of [
    { replicas: 1, podDisruptionBudget: { minAvailable: 1 } },
    { replicas: 3, podDisruptionBudget: { minAvailable: 2, maxUnavailable: 0 } },
    { podDisruptionBudget: { enabled: false, maxUnavailable: 0 } },
    { mode: 'daemonset', updateStrategy: { type: 'OnDelete' } },
    { updateStrategy: { rollingUpdate: { maxSurge: 1 } } },
    { resources: { requests: { memory: '0.1Gi', cpu: '500m' }, limits: { memory: '110Mi', cpu: 0.5 } } },
    { podSecurityContext: { runAsUser: 0, runAsNonRoot: false } },
    { extraArgs: ['--otlp-endpoint=http://collector:4318'] },
    { commonLabels: { team: 'a' }, podLabels: { tier: 'b' } },
  ]) {
    await template(values);
  }
});

test("the sidecar's notes are a container that the API server accepts in the gateway's pod", async () => {
  const file = join(scratch, 'sidecar.yaml');
  const certificates = [{ name: 'sidecar', spec: { istio: { sds: {} } } }];
  await writeFile(file, stringify({ mode: 'sidecar', serviceAccount: { name: 'gateway' }, certificates }));
  const { stdout } = await run(helm, [
    ...['install', 'notes', CHART, '-n', 'emissary', '--dry-run', '-f', file, '--kubeconfig', server.kubeconfigFile],
  ]);
  const [, notes = ''] = /pod:\n\n([\s\S]*?)\n\n/.exec(stdout.slice(stdout.indexOf('NOTES:'))) ?? [];
  const pod = parse(notes) as { containers: Record<string, unknown>[]; volumes: object[] };
  assert.match(JSON.stringify(pod.containers[0]), /"runAsUser":1337/);
  assert.match(JSON.stringify(pod.containers[0]?.volumeMounts), /workload-spiffe-uds/);
  const object = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'gateway', namespace: 'emissary' }, spec: pod };
  await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: stringify(object) });
});

test('the schema refuses each value of values.yaml when its type is wrong, and knows all of them', async () => {
  const own = parse(readFileSync(join(CHART, 'values.yaml'), 'utf8')) as Record<string, unknown>;
  await template(own);
  for (const key of Object.keys(own)) {
    const refused = /values don't meet the specifications of the schema|type mismatch on crds/;
    await assert.rejects(template({ [key]: 3.5 }), refused, key);
  }
});

test('one helm install on an empty cluster creates definition and MeshCertificates, and uninstall keeps the definition', async () => {
  await using empty = await startKubeApiserver();
  const call = (...args: string[]) => run(helm, [...args, '--kubeconfig', empty.kubeconfigFile]);
  const file = join(scratch, 'install.yaml');
  const certificates = [
    { name: 'linkerd', spec: { linkerd: { serviceAccount: { name: 'gateway' } }, tlsContext: { enabled: false } } },
  ];
  await writeFile(file, stringify({ certificates }));
  await empty.ensureNamespace('linkerd');
  for (const namespace of ['emissary', 'edge']) {
    await call('install', 'meshcert', CHART, '-n', namespace, '--create-namespace', '-f', file);
  }
  const all = await empty.kubectl(['get', 'meshcertificates', '-A', '-o', 'name']);
  assert.equal(all.trim().split('\n').length, 2);
  const roles = await empty.kubectl(['get', 'roles', '-n', 'linkerd', '-o', 'name']);
  assert.deepEqual(roles.trim().split('\n'), [
    'role.rbac.authorization.k8s.io/meshcert-edge',
    'role.rbac.authorization.k8s.io/meshcert-emissary',
  ]);
  for (const namespace of ['emissary', 'edge']) await call('uninstall', 'meshcert', '-n', namespace);
  assert.match(await empty.kubectl(['get', 'crd', '-o', 'name']), /meshcertificates\.meshcert\.dev/);

  const off = await run(helm, [
    ...['template', 'x', CHART, '--kube-version', '1.34.2', '--include-crds', '--set', 'crds.enabled=false'],
  ]);
  assert.doesNotMatch(off.stdout, /kind: CustomResourceDefinition/);
});

test('namespaces that are watched and named by a MeshCertificate get one Role each', async () => {
  const { text, objects } = await template({
    observe: 'labels',
    watchNamespaces: ['emissary', 'mesh', 'mesh'],
    certificates: CERTIFICATES,
  });
  const roles = objects
    .filter(({ kind }) => kind === 'Role')
    .map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
  assert.deepEqual(roles, [...new Set(roles)]);
  await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: text });
});

test('each kustomize overlay is applied on the first try once the definition exists', async () => {
  await using empty = await startKubeApiserver();
  await empty.ensureNamespace('emissary');
  await empty.kubectl(['apply', '--server-side', '-k', join(ROOT, 'deploy/crd')]);
  await empty.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
  for (const overlay of ['deployment', 'daemonset', 'sidecar']) {
    await empty.kubectl(['apply', '-k', join(ROOT, 'deploy/kustomize/overlays', overlay)]);
  }
});
