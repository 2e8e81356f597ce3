import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { RENEW_ANNOTATION } from '../../core/object.ts';
import type { Problem } from '../../core/problem.ts';
import type { PublicationStatus } from '../../core/status.ts';

type Remembered = Partial<Pick<PublicationStatus, 'renewRequest' | 'lastRotationTime' | 'lastError'>> | undefined;

/**
 * The renewal that was acted on already, as the status remembers it. A document of a file has no status: what it asks
 * for at first is old.
 */
export function renewRequestOf({ metadata, status }: MeshCertificate): string | undefined {
  if (metadata.uid === undefined) return metadata.annotations?.[RENEW_ANNOTATION];
  return (status as Remembered)?.renewRequest;
}

/** When the leaf that stands came, epoch ms, as the status remembers it. */
export function rotatedAt({ status }: MeshCertificate): number | undefined {
  const time = (status as Remembered)?.lastRotationTime;
  return time === undefined ? undefined : Date.parse(time);
}

/** The newest failure, as the status remembers it. */
export function failureOf({ status }: MeshCertificate): Problem | undefined {
  const error = (status as Remembered)?.lastError;
  return error && { code: error.code, message: error.message, at: Date.parse(error.time) };
}
