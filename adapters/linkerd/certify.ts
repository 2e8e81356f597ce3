import { Semaphore } from '../../src/async/semaphore.ts';
import type { Share } from '../../src/async/sharing.ts';
import { type ChannelTarget, openChannel } from '../../src/grpc/channel.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { certifyError } from './errors.ts';

/** The service sets no limit of its own; its TokenReview takes milliseconds. */
const DEADLINE_MS = 10_000;
/** Concurrent requests: each costs the service a review of the token, which the API server limits. */
const AT_ONCE = 32;

export interface IdentityService {
  /** `host:port`. */
  readonly address: string;
  /** Both the SNI by which its proxy recognises connections for itself, and the name in its certificate. */
  readonly serverName: string;
  /** Its certificate must verify under these. */
  readonly roots: readonly Certificate[];
}

export interface CertifyRequest {
  readonly identity: string;
  readonly token: string;
  /** PKCS#10, DER. */
  readonly csr: Buffer;
}

interface CertifyResponse {
  readonly leaf_certificate: Buffer;
  readonly intermediate_certificates: readonly Buffer[];
  readonly valid_until: { readonly seconds: string; readonly nanos: number } | null;
}

/**
 * One Identity.Certify: the leaf, then its issuer and further ones as received, without a root. The connection is for
 * this call and those in progress with it, so that new roots take effect at once. Rejects with a MeshError.
 */
export async function certify(
  service: IdentityService,
  request: CertifyRequest,
  { now, share }: { readonly now: () => number; readonly share: Share },
  signal: AbortSignal,
): Promise<readonly Certificate[]> {
  const { address, serverName, roots } = service;
  const tls = { ca: formatCertificates(roots), serverName, minVersion: 'TLSv1.3' } as const;
  using held = share(`linkerd ${JSON.stringify([address, tls])}`, () => connection({ address, tls }));
  const { channel, turns } = held.value;
  using _turn = await turns.take(signal);
  try {
    const response = await channel.unary<CertifyResponse>(
      {
        identity: request.identity,
        // A string would be treated as base64 here.
        token: Buffer.from(request.token, 'utf8'),
        certificate_signing_request: request.csr,
      },
      { method: 'io.linkerd.proxy.identity.Identity/Certify', deadlineMs: DEADLINE_MS, signal },
    );
    return readChain(response, service);
  } catch (error) {
    throw certifyError(error, { address, serverName, token: request.token, now: now() });
  }
}

function connection(target: ChannelTarget) {
  const channel = openChannel(target);
  return { channel, turns: new Semaphore(AT_ONCE), [Symbol.dispose]: () => channel.close() };
}

function readChain(response: CertifyResponse, { address, serverName }: IdentityService): readonly Certificate[] {
  const wrong = (what: string, cause?: unknown) =>
    new MeshError('ERR_MESH_BAD_RESPONSE', `identity service ${serverName} at ${address} answered ${what}`, { cause });
  if (response.leaf_certificate.length === 0) throw wrong('without a leaf certificate');
  if (!response.valid_until) throw wrong('without valid_until');
  const ders = [response.leaf_certificate, ...response.intermediate_certificates];
  const chain = ders.map((der, index) => {
    try {
      return Certificate.fromDer(der);
    } catch (cause) {
      throw wrong(`with a certificate (number ${index + 1}) that cannot be read`, cause);
    }
  });
  // An operator may have put the root into the issuer's file; a verifier must have it anyway.
  return chain.filter(({ selfSigned }, index) => index === 0 || !selfSigned);
}
