import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { keyOf, refOf } from '../core/object.ts';
import type { PublicationStatus } from '../core/status.ts';

/** What was told last of one MeshCertificate: one object that every sink may hold on to and none may change. */
export interface Told {
  /** As `keyOf` has it. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly status: PublicationStatus;
}

export function toldOf(certificate: MeshCertificate, status: PublicationStatus): Told & { status: PublicationStatus } {
  const { name, namespace = '' } = certificate.metadata;
  return { key: keyOf(refOf(certificate)), namespace, name, status };
}
