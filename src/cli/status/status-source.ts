import { get } from 'node:http';
import type { KubeObject } from '../../core/object.ts';
import { reportedStatus } from '../../core/status.ts';
import type { Kube, Selection } from '../../kube/api.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { KubeError } from '../../kube/transport/error.ts';
import { systemReason } from '../terminal/failure.ts';
import type { StatusRow } from './status-table.ts';

/** The statuses of MeshCertificate resources. */
export async function statusesOfCluster(kube: Kube, selection: Selection, signal: AbortSignal): Promise<StatusRow[]> {
  try {
    const { items } = await kube.list(RESOURCES.meshCertificates, selection, signal);
    return items.map(rowOf);
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) {
      const next = 'apply deploy/crd/meshcertificate.yaml, or ask an agent that runs from a file with --url';
      throw new Error(`MeshCertificate is not defined in this cluster: ${next}`);
    }
    throw error;
  }
}

export function rowOf({ metadata, status }: KubeObject): StatusRow {
  return { namespace: metadata.namespace ?? '', name: metadata.name, status: reportedStatus(status) };
}

const TIMEOUT_MS = 10_000;

/** The statuses that an agent serves at its /api/status. */
export async function statusesOfAgent(address: URL, signal: AbortSignal): Promise<StatusRow[]> {
  const body = await new Promise<string>((resolve, reject) => {
    const request = get(address, { signal, timeout: TIMEOUT_MS }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      answer.once('error', reject).once('end', () => {
        if (answer.statusCode === 200) resolve(text);
        else reject(new Error(`${address.href} answered ${answer.statusCode}; is it a meshcert agent?`));
      });
    });
    request.once('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
    request.once('error', (cause) =>
      reject(new Error(`cannot reach ${address.href}: ${systemReason(cause)}`, { cause })),
    );
  });
  const certificates = rowsIn(body);
  if (!certificates) throw new Error(`${address.href} is not a meshcert agent; check --url`);
  return certificates;
}

function rowsIn(body: string): StatusRow[] | undefined {
  try {
    const { certificates } = JSON.parse(body) as { certificates?: StatusRow[] };
    return Array.isArray(certificates) ? certificates : undefined;
  } catch {
    return undefined;
  }
}
