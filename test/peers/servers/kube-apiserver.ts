import { generateKeyPairSync, randomUUID, X509Certificate } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peer } from '../build.ts';
import { type Etcd, startEtcd } from './etcd.ts';
import { type Cluster, type KubeClient, kubeClient } from './kube-client.ts';
import { freePorts } from './loopback.ts';
import { Daemon, type Server, scratchDir, serverOf } from './process.ts';

/**
 * A bare API server: RBAC, TokenRequest, TokenReview, CRDs and audit work; there is no controller-manager, so
 * no default ServiceAccounts and no garbage collection.
 */
export interface KubeApiserver extends Server, Cluster, KubeClient {
  readonly port: number;
  readonly pid: number;
  /** For the admin (system:masters). */
  readonly kubeconfigFile: string;
  readonly etcd: Etcd;
}

export interface KubeApiserverOptions {
  /** Started and stopped along with it when not given. */
  readonly etcd?: Etcd;
  /** Further users with fixed tokens. */
  readonly users?: readonly { readonly token: string; readonly name: string; readonly groups?: readonly string[] }[];
  /** Further flags; of a flag given twice the last counts. */
  readonly args?: readonly string[];
}

/** Flags that serve ClusterTrustBundles, which are off by default up to Kubernetes 1.36. */
export const TRUST_BUNDLES = [
  '--feature-gates=ClusterTrustBundle=true',
  '--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true',
] as const;

const issuer = 'https://kubernetes.default.svc.cluster.local';

export async function startKubeApiserver(options: KubeApiserverOptions = {}): Promise<KubeApiserver> {
  const dir = scratchDir('kube-apiserver');
  const { port } = await freePorts('port');
  const cluster: Cluster = {
    url: `https://127.0.0.1:${port}`,
    caFile: join(dir, 'ca.crt'),
    adminToken: randomUUID(),
    auditLog: join(dir, 'audit.log'),
    dir,
  };
  const files = { key: join(dir, 'sa.key'), tokens: join(dir, 'tokens.csv'), audit: join(dir, 'audit.yaml') };
  const users = [{ token: cluster.adminToken, name: 'admin', groups: ['system:masters'] }, ...(options.users ?? [])];
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const policy = {
    apiVersion: 'audit.k8s.io/v1',
    kind: 'Policy',
    omitStages: ['RequestReceived'],
    rules: [{ level: 'Metadata' }],
  };
  await Promise.all([
    writeFile(files.key, privateKey.export({ type: 'pkcs1', format: 'pem' }), { mode: 0o600 }),
    writeFile(files.audit, JSON.stringify(policy)),
    writeFile(
      files.tokens,
      users.map((u) => `${u.token},${u.name},${u.name},"${(u.groups ?? []).join(',')}"\n`).join(''),
      { mode: 0o600 },
    ),
  ]);

  const client = kubeClient(cluster);
  const kubeconfigFile = await client.kubeconfigFor('admin', cluster.adminToken);
  const etcd = options.etcd ?? (await startEtcd());
  const daemon = await Daemon.start({
    name: 'kube-apiserver',
    file: await peer('kube-apiserver'),
    args: [
      `--etcd-servers=${etcd.url}`,
      `--cert-dir=${dir}`,
      `--secure-port=${port}`,
      '--bind-address=127.0.0.1',
      `--service-account-key-file=${files.key}`,
      `--service-account-signing-key-file=${files.key}`,
      `--service-account-issuer=${issuer}`,
      `--api-audiences=${issuer}`,
      '--authorization-mode=RBAC',
      `--token-auth-file=${files.tokens}`,
      '--service-cluster-ip-range=10.0.0.0/24',
      '--disable-admission-plugins=ServiceAccount',
      '--allow-privileged=true',
      `--audit-policy-file=${files.audit}`,
      `--audit-log-path=${cluster.auditLog}`,
      ...(options.args ?? []),
    ],
    dir,
    ready: async () => {
      await writeAuthority(dir, cluster.caFile);
      const paths = ['/readyz', '/api/v1/namespaces/default', '/api/v1/namespaces/kube-system'];
      const replies = await Promise.all(paths.map((path) => client.call('GET', path)));
      return replies.every(({ status }) => status === 200);
    },
  }).catch(async (error) => {
    if (!options.etcd) await etcd.stop();
    throw error;
  });

  const server = serverOf(daemon, dir);
  const stop = async (): Promise<void> => {
    await server.stop();
    if (!options.etcd) await etcd.stop();
  };
  return {
    ...{ ...server, ...cluster, ...client, stop, [Symbol.asyncDispose]: stop, port, kubeconfigFile, etcd },
    get pid() {
      return daemon.pid;
    },
  };
}

/** The server makes its own certificate and appends the CA that signed it; clients need only the CA. */
async function writeAuthority(dir: string, caFile: string): Promise<void> {
  const chain = await readFile(join(dir, 'apiserver.crt'), 'utf8');
  const pems = chain.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? [];
  const ca = pems.find((pem) => new X509Certificate(pem).ca);
  if (!ca) throw new Error('no CA in apiserver.crt yet');
  await writeFile(caFile, ca);
}
