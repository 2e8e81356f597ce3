import { get } from 'node:http';
import type { KubeObject } from '../core/object.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Kube } from '../kube/api.ts';
import { KubeError } from '../kube/error.ts';
import { RESOURCES } from '../kube/resources.ts';
import { UsageError } from './command.ts';
import type { StatusRow } from './status-table.ts';

/** The statuses of MeshCertificate resources; `namespace` undefined: of all. */
export async function statusesOfCluster(
  kube: Kube,
  namespace: string | undefined,
  signal: AbortSignal,
): Promise<StatusRow[]> {
  try {
    const { items } = await kube.list(RESOURCES.meshCertificates, { namespace }, signal);
    return items.map(rowOf);
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) {
      const next = 'apply deploy/crd/meshcertificate.yaml, or ask an agent that runs from a file with --url';
      throw new Error(`the cluster has no MeshCertificates: ${next}`);
    }
    throw error;
  }
}

export function rowOf({ metadata, status }: KubeObject): StatusRow {
  const known = status as Partial<PublicationStatus> | undefined;
  return { namespace: metadata.namespace ?? '', name: metadata.name, status: known };
}

/** The statuses that an agent tells at its /api/status. */
export async function statusesOfAgent(url: string, signal: AbortSignal): Promise<StatusRow[]> {
  if (!URL.canParse(url))
    throw new UsageError(`--url ${url}: expected http://host:port, such as http://127.0.0.1:9464`);
  const address = new URL('/api/status', url);
  if (address.protocol !== 'http:') throw new Error(`--url ${url}: the agent speaks http`);
  const body = await new Promise<string>((resolve, reject) => {
    get(address, { signal, timeout: 10_000 }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      answer.once('error', reject).once('end', () => {
        if (answer.statusCode === 200) resolve(text);
        else reject(new Error(`${address.href} answered ${answer.statusCode}; is it a meshcert agent?`));
      });
    }).once('error', (cause) => reject(new Error(`cannot reach ${address.href}: ${cause.message}`, { cause })));
  });
  return (JSON.parse(body) as { certificates: StatusRow[] }).certificates;
}
