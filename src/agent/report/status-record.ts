import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { keyOf, refOf } from '../../core/object.ts';
import type { PublicationStatus } from '../../core/status.ts';

/** The last reported status of one MeshCertificate: one object that every sink may keep and none may change. */
export interface StatusRecord {
  /** Equal to `keyOf`. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly status: PublicationStatus;
}

export function statusRecordOf(
  certificate: MeshCertificate,
  status: PublicationStatus,
): StatusRecord & { status: PublicationStatus } {
  const { name, namespace = '' } = certificate.metadata;
  return { key: keyOf(refOf(certificate)), namespace, name, status };
}
