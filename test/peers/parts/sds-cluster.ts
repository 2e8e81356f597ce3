import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Istio, startIstio } from '../../../sandbox/istio/istio.ts';
import { ROOT } from '../../../scripts/tree.ts';
import { type KubeApiserver, type KubeApiserverOptions, startKubeApiserver } from '../servers/kube-apiserver.ts';
import { discard, scratchDir } from '../servers/process.ts';
import { prepareCluster } from './prepare.ts';

export const GATEWAY_ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';

export interface SdsCluster {
  readonly server: KubeApiserver;
  readonly dir: string;
  /** A file with the MeshCertificate `istio` of the namespace `emissary`, which reads the socket of a pilot-agent. */
  readonly documents: string;
  stop(): Promise<void>;
}

/** A real API server with the definitions, and a pilot-agent of the sandbox; `spec` adds lines to the MeshCertificate. */
export async function startSdsCluster(options: KubeApiserverOptions & { spec?: string } = {}): Promise<SdsCluster> {
  const dir = scratchDir('sds-cluster');
  const [server, istio]: [KubeApiserver, Istio] = await Promise.all([startKubeApiserver(options), startIstio()]);
  const socket = join(dir, 'sds.sock');
  await istio.startPilotAgent({ socket, id: GATEWAY_ID });
  await prepareCluster(server, { emissary: [] });
  await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
  await server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
  const documents = join(dir, 'mesh.yaml');
  await writeFile(
    documents,
    `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: istio, namespace: emissary}
spec:
  istio: {sds: {socket: ${socket}}}
${options.spec ?? ''}`,
  );
  return {
    ...{ server, dir, documents },
    async stop() {
      await istio.stop();
      await server.stop();
      discard(dir);
    },
  };
}
