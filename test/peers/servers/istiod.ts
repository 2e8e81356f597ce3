import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peer } from '../build.ts';
import type { KubeApiserver } from './kube-apiserver.ts';
import { answers, freePorts, listening } from './loopback.ts';
import { Daemon, type Server, scratchDir, serverOf } from './process.ts';

export interface Istiod extends Server {
  /** The CA and XDS over TLS; the certificate is for `serverName`. */
  readonly secureAddress: string;
  /** The same without TLS, which no token must be sent to. */
  readonly plaintextAddress: string;
  readonly securePort: number;
  readonly serverName: string;
  readonly trustDomain: string;
  /** An answer of its debug interface, such as `configz`. */
  debug(page: string): Promise<unknown>;
  /** What istiod publishes as `istio-ca-root-cert`, or as a ClusterTrustBundle, now; PEM. */
  rootCertificate(): Promise<string>;
  /** Ready again with these variables changed. */
  restart(env?: Readonly<Record<string, string>>): Promise<void>;
  /** Replaces the CRLs of a plug-in CA, as the kubelet does when the Secret `cacerts` changes. */
  writeCrls(pem: string): Promise<void>;
  /** A root with a new key, as after a lost Secret: stops istiod, deletes its CA, starts it again. */
  replaceRoot(): Promise<void>;
}

const CRLS = 'ca-crl.pem';
/** What istiod writes in place of the ConfigMap with ENABLE_CLUSTER_TRUST_BUNDLE_API. */
export const TRUST_BUNDLE = '/apis/certificates.k8s.io/v1beta1/clustertrustbundles/istio.io:istiod-ca:root-cert';

export interface IstiodOptions {
  readonly apiserver: KubeApiserver;
  readonly trustDomain?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** A plug-in CA instead of a self-signed one: PEM by file name, as in the Secret `cacerts`. */
  readonly cacerts?: Readonly<Record<'ca-cert.pem' | 'ca-key.pem' | 'root-cert.pem' | 'cert-chain.pem', string>>;
  /** False: what it writes its root to is not served, so its start does not wait for that. */
  readonly publishes?: false;
}

/**
 * Variables that rotate a self-signed root every two minutes (same key and SKI, new serial and dates) and limit leaves
 * to a minute or two: the shortest that istiod's own checks allow. They apply to a root made under them: on an API
 * server that had no istiod before, or after `replaceRoot`.
 */
export const fastRotation = {
  CITADEL_SELF_SIGNED_CA_CERT_TTL: '4m',
  CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL: '10s',
  CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE: '50',
  CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR: 'false',
  DEFAULT_WORKLOAD_CERT_TTL: '1m',
  MAX_WORKLOAD_CERT_TTL: '2m',
} as const;

export async function startIstiod(options: IstiodOptions): Promise<Istiod> {
  const { apiserver, trustDomain = 'cluster.local' } = options;
  await apiserver.ensureNamespace('istio-system');
  const dir = scratchDir('istiod');
  const ports = await freePorts('http', 'grpc', 'secure', 'https', 'monitoring', 'ctrlz');
  const meshConfig = join(dir, 'mesh.yaml');
  await writeFile(meshConfig, `trustDomain: ${trustDomain}\n`);
  if (options.cacerts) {
    await mkdir(join(dir, 'etc', 'cacerts'), { recursive: true });
    for (const [name, pem] of Object.entries(options.cacerts)) {
      await writeFile(join(dir, 'etc', 'cacerts', name), pem);
    }
  }
  let env: Record<string, string> = {
    KUBECONFIG: apiserver.kubeconfigFile,
    POD_NAME: 'istiod-0',
    POD_NAMESPACE: 'istio-system',
    PILOT_CERT_PROVIDER: 'istiod',
    CLOUD_PLATFORM: 'none',
    REVISION: 'default',
    CLUSTER_ID: 'Kubernetes',
    ENABLE_LEADER_ELECTION: 'false',
    ...options.env,
  };
  const daemon = await Daemon.start({
    name: 'istiod',
    file: await peer('pilot-discovery'),
    args: [
      'discovery',
      `--kubeconfig=${apiserver.kubeconfigFile}`,
      `--httpAddr=127.0.0.1:${ports.http}`,
      `--grpcAddr=127.0.0.1:${ports.grpc}`,
      `--secureGRPCAddr=127.0.0.1:${ports.secure}`,
      `--httpsAddr=127.0.0.1:${ports.https}`,
      `--monitoringAddr=127.0.0.1:${ports.monitoring}`,
      '--ctrlz_address=127.0.0.1',
      `--ctrlz_port=${ports.ctrlz}`,
      `--meshConfig=${meshConfig}`,
      '--domain=cluster.local',
    ],
    dir,
    env,
    ready: async () =>
      (await answers(`http://127.0.0.1:${ports.http}/ready`)) && (await listening(ports.secure)) && (await published()),
  });

  /** A plug-in CA may take over from an earlier istiod, whose root is published until then. */
  async function published(): Promise<boolean> {
    if (options.publishes === false) return true;
    const root = await rootCertificate();
    return root !== '' && (!options.cacerts || root.trim() === options.cacerts['root-cert.pem'].trim());
  }

  async function rootCertificate(): Promise<string> {
    const path = '/api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert';
    const { body } = await apiserver.call('GET', path);
    if (body?.data?.['root-cert.pem']) return body.data['root-cert.pem'];
    return (await apiserver.call('GET', TRUST_BUNDLE)).body?.spec?.trustBundle ?? '';
  }

  async function restart(changes: Readonly<Record<string, string>> = {}): Promise<void> {
    env = { ...env, ...changes };
    await daemon.restart({ env });
  }

  return {
    ...serverOf(daemon, dir),
    secureAddress: `127.0.0.1:${ports.secure}`,
    plaintextAddress: `127.0.0.1:${ports.grpc}`,
    securePort: ports.secure,
    serverName: 'istiod.istio-system.svc',
    trustDomain,
    debug: async (page) => (await fetch(`http://127.0.0.1:${ports.http}/debug/${page}`)).json(),
    rootCertificate,
    restart,
    writeCrls: async (pem) => {
      const draft = join(dir, CRLS);
      await writeFile(draft, pem);
      await rename(draft, join(dir, 'etc', 'cacerts', CRLS));
    },
    replaceRoot: async () => {
      await daemon.stop();
      const path = '/api/v1/namespaces/istio-system/';
      await apiserver.call('DELETE', `${path}secrets/istio-ca-secret`);
      // The old root too, or readiness would find it before istiod has written the new one.
      await apiserver.call('DELETE', `${path}configmaps/istio-ca-root-cert`);
      await apiserver.call('DELETE', TRUST_BUNDLE);
      await restart();
    },
  };
}
