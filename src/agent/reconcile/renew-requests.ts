import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { RENEW_ANNOTATION } from '../../core/object.ts';
import type { PublicationStatus } from '../../core/status.ts';

/** Requests for a new certificate, by the renew annotation of one MeshCertificate or by a call. */
export class RenewRequests {
  /** The last annotation value that was noticed. */
  #noticed: string | undefined;
  /** The value whose new certificate was read back. The status records it, so that a restart does not renew again. */
  done: string | undefined;
  /** A new certificate was requested, and none has been published since. */
  pending = false;

  constructor(certificate: MeshCertificate) {
    this.done = recordedIn(certificate);
    this.#noticed = this.done;
  }

  /** Whether the annotation asks for a certificate for the first time. */
  notice({ metadata }: MeshCertificate): boolean {
    const value = metadata.annotations?.[RENEW_ANNOTATION];
    if (value === undefined || value === this.#noticed) return false;
    this.#noticed = value;
    this.pending = true;
    return true;
  }

  /** A new leaf was read back. */
  fulfilled(): void {
    this.done = this.#noticed;
    this.pending = false;
  }
}

/** A document in a file has no status: its value at the start counts as handled. */
function recordedIn({ metadata, status }: MeshCertificate): string | undefined {
  if (metadata.uid === undefined) return metadata.annotations?.[RENEW_ANNOTATION];
  return (status as Partial<PublicationStatus> | undefined)?.renewRequest;
}
