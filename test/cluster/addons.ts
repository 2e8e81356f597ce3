import { eventually } from '../peers/parts/eventually.ts';
import type { KubeClient } from '../peers/servers/kube-client.ts';
import { output } from '../peers/servers/process.ts';
import { imageName } from './images.ts';
import { RESOURCES } from './mesh/objects.ts';
import { DNS_ADDRESS } from './node/kubelet.ts';
import type { Namespaces } from './node/namespaces.ts';

const COREFILE = `.:53 {
  errors
  ready
  kubernetes cluster.local in-addr.arpa
  cache 5
  loadbalance
}
`;

/** DNS of the cluster, as kubeadm installs it except for the image. */
const DNS = [
  { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'coredns', namespace: 'kube-system' } },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'system:coredns' },
    rules: [
      { apiGroups: [''], resources: ['services', 'pods', 'namespaces'], verbs: ['list', 'watch'] },
      { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
    ],
  },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'system:coredns' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'system:coredns' },
    subjects: [{ kind: 'ServiceAccount', name: 'coredns', namespace: 'kube-system' }],
  },
  {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'coredns', namespace: 'kube-system' },
    data: { Corefile: COREFILE },
  },
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'kube-dns', namespace: 'kube-system' },
    spec: {
      selector: { 'k8s-app': 'kube-dns' },
      clusterIP: DNS_ADDRESS,
      ports: [
        { name: 'dns', port: 53, protocol: 'UDP' },
        { name: 'dns-tcp', port: 53, protocol: 'TCP' },
      ],
    },
  },
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'coredns', namespace: 'kube-system' },
    spec: {
      selector: { matchLabels: { 'k8s-app': 'kube-dns' } },
      template: {
        metadata: { labels: { 'k8s-app': 'kube-dns' } },
        spec: {
          serviceAccountName: 'coredns',
          dnsPolicy: 'Default',
          containers: [
            {
              name: 'coredns',
              image: imageName('coredns'),
              resources: RESOURCES,
              args: ['-conf', '/etc/coredns/Corefile'],
              readinessProbe: { httpGet: { path: '/ready', port: 8181 }, periodSeconds: 1 },
              volumeMounts: [{ name: 'config', mountPath: '/etc/coredns' }],
            },
          ],
          volumes: [{ name: 'config', configMap: { name: 'coredns' } }],
        },
      },
    },
  },
];

/** Asks through kube-proxy as a pod does, because its rules follow the endpoints some time after the rollout. */
const LOOK_UP = `
const { Resolver } = require('node:dns/promises');
const resolver = new Resolver({ timeout: 1_000, tries: 1 });
resolver.setServers(['${DNS_ADDRESS}']);
resolver.resolve4('kubernetes.default.svc.cluster.local').catch(() => process.exit(1));`;

/** Resolves once the DNS answers. */
export async function installDns(client: KubeClient, { enter }: Namespaces): Promise<void> {
  const input = DNS.map((object) => JSON.stringify(object)).join('\n---\n');
  await client.kubectl(['apply', '--server-side', '-f', '-'], { input });
  await client.kubectl(['-n', 'kube-system', 'rollout', 'status', 'deployment/coredns', '--timeout=120s']);
  await eventually('an answer of the DNS', async () => {
    await output(...enter('net', process.execPath, ['-e', LOOK_UP]));
    return true;
  });
}
