import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import type { Handler } from '../grpc/server.ts';
import { type Csr, readCsr } from '../tls/csr.ts';
import type { LinkerdAuthority } from './authority.ts';
import { ownerOf, type TokenReviewer } from './token-review.ts';

interface SandboxCertifyRequest {
  readonly identity: string;
  readonly token: Buffer;
  readonly certificate_signing_request: Buffer;
}

export interface IdentityServiceOptions {
  readonly authority: LinkerdAuthority;
  /** Read once when the process started. */
  readonly anchors: () => readonly Certificate[];
  readonly nameOf: (account: { kind: string; namespace: string; name: string }) => string;
  readonly review: TokenReviewer;
  /** A status to return instead. */
  readonly failure: () => number | undefined;
  readonly issued: (identity: string) => void;
}

/**
 * Identity.Certify: the checks of Linkerd's controller in its order and with its codes. Stricter in one point: the
 * request's own signature is verified, so that a client that signs incorrectly is detected.
 */
export function certifyHandler(options: IdentityServiceOptions): Handler {
  const { authority, anchors, nameOf, issued } = options;
  return {
    async unary(request: SandboxCertifyRequest) {
      const failure = options.failure();
      if (failure !== undefined) throw new GrpcError(failure, 'sandbox: told to fail');
      if (!authority.issuerChain) throw new GrpcError(grpcStatus.UNAVAILABLE, 'cert issuer not ready yet');
      const { identity } = request;
      const csr = readRequest(request);
      const problem = authority.issuerProblem(anchors());
      if (problem) throw new GrpcError(grpcStatus.UNKNOWN, problem);
      checkNames(csr, identity);
      const owner = await ownerOf(request.token.toString('utf8'), options.review).catch((error: Error) => {
        throw new GrpcError(grpcStatus.INTERNAL, `tokenreview: ${error.message}`);
      });
      if ('wrong' in owner) throw new GrpcError(grpcStatus.INVALID_ARGUMENT, owner.wrong);
      if ('denied' in owner) throw refused(owner.denied);
      const found = nameOf(owner.account);
      if (found !== identity) {
        throw refused(`requested identity did not match provided token: requested=${identity}; found=${found}`);
      }
      if (csr.publicKey.asymmetricKeyType !== 'ec') {
        throw new GrpcError(grpcStatus.INTERNAL, 'CSR must contain an ECDSA public key');
      }
      const [leaf, ...intermediates] = authority.issue(csr.publicKey, identity, csr.commonName);
      issued(identity);
      return {
        leaf_certificate: leaf?.der,
        intermediate_certificates: intermediates.map(({ der }) => der),
        valid_until: { seconds: Math.floor((leaf?.notAfter ?? 0) / 1000), nanos: 0 },
      };
    },
  };
}

const refused = (details: string) => new GrpcError(grpcStatus.FAILED_PRECONDITION, details);

function readRequest({ identity, token, certificate_signing_request: der }: SandboxCertifyRequest): Csr {
  const invalid = (details: string) => new GrpcError(grpcStatus.INVALID_ARGUMENT, details);
  if (identity === '') throw invalid('missing identity');
  if (token.length === 0) throw invalid('missing token');
  if (der.length === 0) throw invalid('missing certificate signing request');
  let csr: Csr;
  try {
    csr = readCsr(der);
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error));
  }
  if (!csr.signatureValid) throw invalid('the certificate signing request is not signed by its key');
  return csr;
}

function checkNames({ names, commonName }: Csr, identity: string): void {
  const [dns] = names.dns;
  if (dns === undefined || names.dns.length !== 1) throw refused('CSR must have exactly one DNSName');
  if (dns !== identity) throw refused(`CSR name does not match requested identity: csr=${dns}; req=${identity}`);
  if (commonName && commonName !== identity) throw refused(`invalid CN: ${commonName}`);
  if (names.emails.length > 0) throw refused('cannot validate email addresses');
  if (names.ips.length > 0) throw refused('cannot validate IP addresses');
  if (names.uris.length > 0) throw refused('cannot validate URIs');
}
