import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { peer } from '../../peers/build.ts';
import { eventually } from '../../peers/parts/eventually.ts';
import { Daemon } from '../../peers/servers/process.ts';
import { type ControlPlane, NODE_NAME, POD_RANGE } from './control-plane.ts';
import { CNI_DIRECTORY } from './machine.ts';
import { childOf, type Namespaces, NODE_ADDRESS } from './namespaces.ts';

export const PAUSE_IMAGE = 'meshcert.dev/pause:test';
export const DNS_ADDRESS = '10.96.0.10';

const SOCKET = '/run/containerd/containerd.sock';

export interface Containerd {
  readonly log: () => string;
  /** Imports an OCI archive: a file of this machine. */
  import(file: string): Promise<void>;
}

export async function startContainerd(namespaces: Namespaces): Promise<Containerd> {
  const dir = join(namespaces.dir, 'containerd');
  await mkdir(join(dir, 'net.d'), { recursive: true });
  const network = {
    cniVersion: '1.0.0',
    name: 'pods',
    plugins: [
      {
        type: 'bridge',
        bridge: 'pods0',
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: { type: 'host-local', ranges: [[{ subnet: POD_RANGE }]], routes: [{ dst: '0.0.0.0/0' }] },
      },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  };
  await writeFile(join(dir, 'net.d', 'pods.conflist'), JSON.stringify(network));
  // Without CAP_SYS_RESOURCE, as in many containers, the OOM score of a process cannot be lowered.
  const config = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${CNI_DIRECTORY}"
    conf_dir = "${dir}/net.d"
`;
  await writeFile(join(dir, 'config.toml'), config);
  const [file, args] = namespaces.enter('node', 'containerd', ['--config', join(dir, 'config.toml')]);
  const daemon = await Daemon.start({
    name: 'containerd',
    file,
    args,
    dir,
    ready: () => namespaces.run('ctr', ['--address', SOCKET, 'version']).then(() => true),
  });
  return {
    log: () => daemon.log(),
    import: async (archive) => {
      await namespaces.run('ctr', [
        '--address',
        SOCKET,
        '--namespace',
        'k8s.io',
        'images',
        'import',
        '--all-platforms',
        archive,
      ]);
    },
  };
}

/** Resolves when the node is Ready; the caller must have imported the image of pause. */
export async function startKubelet(namespaces: Namespaces, controlPlane: ControlPlane): Promise<Daemon> {
  const dir = join(namespaces.dir, 'kubelet');
  await mkdir(dir);
  await writeFile(join(dir, 'resolv.conf'), '');
  const config = {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: { x509: { clientCAFile: controlPlane.caFile }, anonymous: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    cgroupDriver: 'cgroupfs',
    cgroupRoot: namespaces.cgroup,
    clusterDNS: [DNS_ADDRESS],
    clusterDomain: 'cluster.local',
    containerRuntimeEndpoint: `unix://${SOCKET}`,
    enforceNodeAllocatable: [],
    evictionHard: { 'memory.available': '0%', 'nodefs.available': '0%', 'imagefs.available': '0%' },
    failSwapOn: false,
    // A mounted ConfigMap or Secret follows its object within this time.
    syncFrequency: '5s',
    resolvConf: join(dir, 'resolv.conf'),
  };
  await writeFile(join(dir, 'config.json'), JSON.stringify(config));
  const [file, args] = namespaces.enter('node', await peer('kubelet'), [
    `--config=${dir}/config.json`,
    `--kubeconfig=${controlPlane.kubeconfig('kubelet')}`,
    `--node-ip=${NODE_ADDRESS}`,
    `--hostname-override=${NODE_NAME}`,
    '--cert-dir=/var/lib/kubelet/pki',
  ]);
  return Daemon.start({
    name: 'kubelet',
    file,
    args,
    dir,
    ready: async () => {
      const { body } = await controlPlane.client.call('GET', `/api/v1/nodes/${NODE_NAME}`);
      const conditions: { type: string; status: string }[] = body.status.conditions;
      return conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
    },
  });
}

const TOKENS = '/var/lib/kubelet/pods/*/volumes/kubernetes.io~projected/*/*token';

/** The kubelet starts without the tokens that it knew, so it writes new ones into every pod. Resolves when it has. */
export async function renewTokens(namespaces: Namespaces, kubelet: Daemon): Promise<void> {
  // The first part of a token names the key that signed it.
  const script = `for file in ${TOKENS}; do cut -d. -f1 "$file"; echo; done | sort -u`;
  const keys = async () => (await namespaces.run('bash', ['-c', script])).split('\n').filter(Boolean);
  const [former] = await keys();
  process.kill(childOf(kubelet.pid), 'SIGTERM');
  while (kubelet.running) await delay(10);
  await kubelet.restart();
  await eventually(
    'tokens of the new key alone',
    async () => {
      const [key, ...others] = await keys();
      return key !== former && others.length === 0;
    },
    () => kubelet.log(),
    120_000,
  );
}

/** Makes the addresses of Services lead to their pods. */
export async function startKubeProxy(namespaces: Namespaces, controlPlane: ControlPlane): Promise<Daemon> {
  const dir = join(namespaces.dir, 'kube-proxy');
  await mkdir(dir);
  const [file, args] = namespaces.enter('node', await peer('kube-proxy'), [
    `--kubeconfig=${controlPlane.kubeconfig('kube-proxy')}`,
    '--proxy-mode=iptables',
    `--hostname-override=${NODE_NAME}`,
    `--cluster-cidr=${POD_RANGE}`,
    // Pods on one bridge answer each other without passing through the node, where the address would be translated
    // back.
    '--masquerade-all',
    // These write to the kernel of the whole machine.
    '--conntrack-max-per-core=0',
    '--conntrack-tcp-timeout-established=0',
    '--conntrack-tcp-timeout-close-wait=0',
  ]);
  return Daemon.start({
    name: 'kube-proxy',
    file,
    args,
    dir,
    ready: async () => (await namespaces.run('iptables', ['-t', 'nat', '-S'])).includes('KUBE-SERVICES'),
  });
}
