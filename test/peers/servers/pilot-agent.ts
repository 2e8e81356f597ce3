import { mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { peer } from '../build.ts';
import type { Istiod } from './istiod.ts';
import type { KubeApiserver } from './kube-apiserver.ts';
import { freePorts } from './loopback.ts';
import { Daemon, type Server, scratchDir, serverOf } from './process.ts';

/** Istio's agent without its Envoy: a real SDS server on a Unix socket. */
export interface PilotAgent extends Server {
  readonly socket: string;
  /** A fresh service-account token and istiod's current root, as the kubelet would mount them. */
  refreshMounts(): Promise<void>;
}

export interface PilotAgentOptions {
  readonly apiserver: KubeApiserver;
  readonly istiod: Istiod;
  readonly namespace?: string;
  readonly serviceAccount?: string;
  /** `SECRET_TTL: '60s'` makes it push a new leaf about every 28 s. */
  readonly env?: Readonly<Record<string, string>>;
}

// Replaces Envoy, and ends within a second of the agent, however that ends.
const stub = '#!/bin/sh\nexec >/dev/null 2>&1\nwhile kill -0 $PPID; do sleep 1; done\n';

/**
 * The status port, which the agent requires, is the one listener here that binds every interface; it refuses callers
 * from elsewhere.
 */
export async function startPilotAgent(options: PilotAgentOptions): Promise<PilotAgent> {
  const { apiserver, istiod, namespace = 'default', serviceAccount = 'default' } = options;
  await apiserver.ensureNamespace(namespace);
  const dir = scratchDir('agent');
  const { status } = await freePorts('status');
  const file = async (path: string, content: string, mode = 0o600): Promise<string> => {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), content, { mode });
    return join(dir, path);
  };
  const root = join(dir, 'root.pem');
  const refreshMounts = async (): Promise<void> => {
    const account = { namespace, name: serviceAccount, audience: 'istio-ca' };
    await file('var/run/secrets/tokens/istio-token', await apiserver.serviceAccountToken(account));
    await file('root.pem', await istiod.rootCertificate());
  };
  await refreshMounts();
  const proxyConfig = {
    binaryPath: await file('envoy', stub, 0o700),
    customConfigFile: await file('envoy.json', '{}'),
    statusPort: status,
    terminationDrainDuration: '0s',
    discoveryAddress: istiod.secureAddress,
    configPath: dir,
  };
  const socket = join(dir, 'var/run/secrets/workload-spiffe-uds/socket');
  const daemon = await Daemon.start({
    name: 'pilot-agent',
    file: await peer('pilot-agent'),
    args: ['proxy', 'sidecar'],
    dir,
    env: {
      POD_NAME: 'web-0',
      POD_NAMESPACE: namespace,
      SERVICE_ACCOUNT: serviceAccount,
      TRUST_DOMAIN: istiod.trustDomain,
      INSTANCE_IP: '127.0.0.1',
      CLOUD_PLATFORM: 'none',
      // With `localhost` the agent verifies istiod by its in-cluster name.
      CA_ADDR: `localhost:${istiod.securePort}`,
      CA_ROOT_CA: root,
      XDS_ROOT_CA: root,
      ECC_SIGNATURE_ALGORITHM: 'ECDSA',
      PILOT_CERT_PROVIDER: 'istiod',
      ISTIO_META_CLUSTER_ID: 'Kubernetes',
      PROXY_CONFIG: JSON.stringify(proxyConfig),
      ...options.env,
    },
    ready: () => accepts(socket),
  });
  return { ...serverOf(daemon, dir), socket, refreshMounts };
}

function accepts(socket: string): Promise<boolean> {
  const attempt = connect(socket);
  return new Promise<boolean>((resolve) => {
    attempt.once('connect', () => resolve(true)).once('error', () => resolve(false));
  }).finally(() => attempt.destroy());
}
