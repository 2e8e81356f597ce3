import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { RENEW_ANNOTATION } from '../../core/object.ts';
import type { PublicationStatus } from '../../core/status.ts';

/** A request is a time or a word of the user's; what is beyond this is not compared, and not recorded. */
const LONGEST_REQUEST = 1024;

const requestIn = ({ metadata }: MeshCertificate): string | undefined =>
  metadata.annotations?.[RENEW_ANNOTATION]?.slice(0, LONGEST_REQUEST);

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
  notice(certificate: MeshCertificate): boolean {
    const value = requestIn(certificate);
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
function recordedIn(certificate: MeshCertificate): string | undefined {
  if (certificate.metadata.uid === undefined) return requestIn(certificate);
  return (certificate.status as Partial<PublicationStatus> | undefined)?.renewRequest;
}
