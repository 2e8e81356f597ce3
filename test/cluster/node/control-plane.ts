import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { get } from 'node:https';
import { join } from 'node:path';
import { peer } from '../../peers/build.ts';
import { type Authority, authority } from '../../peers/servers/authority.ts';
import type { Forwarding } from '../../peers/servers/forwarding.ts';
import { type KubeClient, kubeClient } from '../../peers/servers/kube-client.ts';
import { answers } from '../../peers/servers/loopback.ts';
import { Daemon } from '../../peers/servers/process.ts';
import { type Namespaces, NODE_ADDRESS } from './namespaces.ts';

export const NODE_NAME = 'node1';
export const SERVICE_RANGE = '10.96.0.0/16';
export const POD_RANGE = '10.85.0.0/16';

const API = `https://${NODE_ADDRESS}:6443`;
const ISSUER = 'https://kubernetes.default.svc.cluster.local';

/** The components that have an account of the API server, with the groups of each. */
const ACCOUNTS = {
  admin: { user: 'admin', groups: ['system:masters'] },
  kubelet: { user: `system:node:${NODE_NAME}`, groups: ['system:nodes'] },
  'kube-controller-manager': { user: 'system:kube-controller-manager', groups: [] },
  'kube-scheduler': { user: 'system:kube-scheduler', groups: [] },
  'kube-proxy': { user: 'system:kube-proxy', groups: [] },
} as const;

export interface ControlPlane extends AsyncDisposable {
  /** Through a port of this machine's loopback. */
  readonly client: KubeClient;
  readonly kubeconfigFile: string;
  /** The kubeconfig of a component, for use in the node's network. */
  kubeconfig(account: keyof typeof ACCOUNTS): string;
  /** Trusted by the kubelet: it issued the API server's own client certificate. */
  readonly caFile: string;
  readonly apiserver: Daemon;
  /** Controllers and scheduler; called once the API server serves. */
  startControllers(): Promise<void>;
  /**
   * Signs the tokens of ServiceAccounts by a new key from now on. `renewed` is called when the API server still accepts
   * the tokens of the old key; after it, no longer.
   */
  replaceTokenKey(renewed: () => Promise<void>): Promise<void>;
}

export async function startControlPlane(namespaces: Namespaces, forwarding: Forwarding): Promise<ControlPlane> {
  const dir = join(namespaces.dir, 'control-plane');
  await mkdir(dir);
  const ca = await authority('kubernetes');
  const [files, tokens, port] = await Promise.all([
    writeKeys(dir, ca),
    writeAccounts(dir),
    forwarding.port(`${NODE_ADDRESS}:6443`),
  ]);
  const client = kubeClient({
    url: `https://127.0.0.1:${port}`,
    caFile: files.ca,
    adminToken: tokens.admin,
    auditLog: join(dir, 'audit.log'),
    dir,
  });
  const daemons: Daemon[] = [];
  const start = async (name: Parameters<typeof peer>[0], args: readonly string[], ready: () => Promise<boolean>) => {
    const [file, all] = namespaces.enter('net', await peer(name), args);
    const daemon = await Daemon.start({ name, file, args: all, dir, ready });
    daemons.push(daemon);
    return daemon;
  };

  const etcdPort = await forwarding.port('127.0.0.1:2379');
  await start('etcd', [`--data-dir=${dir}/etcd`, '--unsafe-no-fsync', '--log-level=warn'], () =>
    answers(`http://127.0.0.1:${etcdPort}/health`),
  );
  const apiserver = await start('kube-apiserver', apiserverFlags(dir, files), async () => {
    const paths = ['/readyz', '/api/v1/namespaces/default', '/api/v1/namespaces/kube-system'];
    const replies = await Promise.all(paths.map((path) => client.call('GET', path)));
    return replies.every(({ status }) => status === 200);
  });

  return {
    client,
    kubeconfigFile: await client.kubeconfigFor('admin', tokens.admin),
    kubeconfig: (account) => join(dir, `${account}.node.kubeconfig`),
    caFile: files.ca,
    apiserver,
    replaceTokenKey: async (renewed) => {
      const former = join(dir, 'former-accounts.key');
      await rename(files.accounts, former);
      await writeFile(files.accounts, accountKey(), { mode: 0o600 });
      const restart = async (flags: string[]) => {
        const [, args] = namespaces.enter('net', await peer('kube-apiserver'), flags);
        await apiserver.restart({ args });
      };
      await restart([...apiserverFlags(dir, files), `--service-account-key-file=${former}`]);
      // The tokens of the controllers are from the same key.
      for (const daemon of daemons.slice(daemons.indexOf(apiserver) + 1)) await daemon.restart();
      await renewed();
      await restart(apiserverFlags(dir, files));
    },
    startControllers: async () => {
      const healthy = async (port: number) => {
        const local = await forwarding.port(`127.0.0.1:${port}`);
        return () => answersSelfSigned(`https://127.0.0.1:${local}/healthz`);
      };
      const kubeconfig = (name: keyof typeof ACCOUNTS) => `--kubeconfig=${dir}/${name}.node.kubeconfig`;
      await Promise.all([
        start(
          'kube-controller-manager',
          [
            kubeconfig('kube-controller-manager'),
            '--use-service-account-credentials',
            `--root-ca-file=${files.ca}`,
            `--service-account-private-key-file=${files.accounts}`,
            '--leader-elect=false',
            `--cert-dir=${dir}/controllers`,
          ],
          await healthy(10257),
        ),
        start(
          'kube-scheduler',
          [kubeconfig('kube-scheduler'), '--leader-elect=false', `--cert-dir=${dir}/scheduler`],
          await healthy(10259),
        ),
      ]);
    },
    async [Symbol.asyncDispose]() {
      for (const daemon of daemons.reverse()) await daemon.stop();
    },
  };
}

/** Controllers and scheduler make certificates for themselves. */
function answersSelfSigned(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    get(url, { rejectUnauthorized: false, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    }).once('error', () => resolve(false));
  });
}

type Files = Readonly<Record<'ca' | 'accounts' | 'serving' | 'servingKey' | 'client' | 'clientKey', string>>;

async function writeKeys(dir: string, ca: Authority): Promise<Files> {
  const name = (file: string) => join(dir, file);
  const files: Files = {
    ca: name('ca.crt'),
    accounts: name('accounts.key'),
    serving: name('apiserver.crt'),
    servingKey: name('apiserver.key'),
    client: name('kubelet-client.crt'),
    clientKey: name('kubelet-client.key'),
  };
  const kubernetes = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc', 'localhost'];
  const serving = await ca.issue({ dns: kubernetes, ip: ['10.96.0.1', NODE_ADDRESS, '127.0.0.1'] });
  const client = await ca.issue({ commonName: 'kube-apiserver', dns: ['kube-apiserver'] });
  const pems: Readonly<Record<keyof Files, string>> = {
    ca: ca.certificate,
    accounts: accountKey(),
    serving: serving.chain,
    servingKey: serving.key,
    client: client.chain,
    clientKey: client.key,
  };
  for (const [key, file] of Object.entries(files)) await writeFile(file, pems[key as keyof Files], { mode: 0o600 });
  return files;
}

function accountKey(): string {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return String(privateKey.export({ type: 'pkcs1', format: 'pem' }));
}

async function writeAccounts(dir: string): Promise<Record<keyof typeof ACCOUNTS, string>> {
  const tokens = {} as Record<keyof typeof ACCOUNTS, string>;
  let table = '';
  for (const [name, { user, groups }] of Object.entries(ACCOUNTS)) {
    const token = randomUUID();
    tokens[name as keyof typeof ACCOUNTS] = token;
    table += `${token},${user},${user},"${groups.join(',')}"\n`;
    const kubeconfig = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'node', cluster: { server: API, 'certificate-authority': join(dir, 'ca.crt') } }],
      users: [{ name, user: { token } }],
      contexts: [{ name: 'node', context: { cluster: 'node', user: name } }],
      'current-context': 'node',
    };
    await writeFile(join(dir, `${name}.node.kubeconfig`), JSON.stringify(kubeconfig), { mode: 0o600 });
  }
  await writeFile(join(dir, 'tokens.csv'), table, { mode: 0o600 });
  return tokens;
}

const apiserverFlags = (dir: string, files: Files): string[] => [
  '--etcd-servers=http://127.0.0.1:2379',
  `--cert-dir=${dir}/apiserver`,
  `--tls-cert-file=${files.serving}`,
  `--tls-private-key-file=${files.servingKey}`,
  `--bind-address=${NODE_ADDRESS}`,
  `--advertise-address=${NODE_ADDRESS}`,
  `--service-cluster-ip-range=${SERVICE_RANGE}`,
  '--authorization-mode=Node,RBAC',
  '--enable-admission-plugins=NodeRestriction',
  '--allow-privileged',
  `--service-account-key-file=${files.accounts}`,
  `--service-account-signing-key-file=${files.accounts}`,
  `--service-account-issuer=${ISSUER}`,
  `--token-auth-file=${dir}/tokens.csv`,
  '--kubelet-preferred-address-types=InternalIP',
  `--kubelet-client-certificate=${files.client}`,
  `--kubelet-client-key=${files.clientKey}`,
];
