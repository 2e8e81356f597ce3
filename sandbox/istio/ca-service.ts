import type { Clock } from '../../src/async/clock.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { Certificate } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import type { CallContext } from '../grpc/server.ts';
import { SandboxCa } from '../tls/ca.ts';
import { type Csr, readCsr } from '../tls/csr.ts';
import type { IstioAuthority } from './authority.ts';

export interface Caller {
  readonly namespace: string;
  readonly account: string;
}

/** Like a TokenReview for the CA's audiences: undefined when the token is not valid. */
export type Authenticate = (token: string) => Promise<Caller | undefined> | Caller | undefined;

/** The fault to inject: an invalid answer, or an error status. */
export type CaFault =
  | 'wrongKey'
  | 'otherIdentity'
  | 'expiredLeaf'
  | 'emptyChain'
  | 'unchained'
  | 'garbage'
  | 'internal'
  | 'silent'
  | { readonly status: number; readonly details: string };

export interface CaServiceOptions {
  readonly clock: Clock;
  readonly authority: IstioAuthority;
  readonly trustDomain: string;
  readonly clusterId: string;
  readonly authenticate: Authenticate;
  /** istiod ignores the names in a request and refuses a long lifetime; istio-csr is strict, and caps silently. */
  readonly manner: 'istiod' | 'istio-csr';
  readonly maxLifetimeMs: number;
}

interface CsrRequest {
  readonly csr: string;
  readonly validity_duration: string;
}

/** A leaf that expired is this old. */
const LONG_AGO_MS = 60_000;

/** CreateCertificate as istiod and istio-csr answer it. */
export class CaService {
  readonly #options: CaServiceOptions;
  fault: CaFault | undefined;
  /** Requests that got a certificate, by the identity they got. */
  readonly issued: string[] = [];
  /** All requests, however they ended. */
  requests = 0;

  constructor(options: CaServiceOptions) {
    this.#options = options;
  }

  readonly handler = {
    CreateCertificate: { unary: (request: never, context: CallContext) => this.#create(request, context) },
  };

  async #create(request: CsrRequest, context: CallContext): Promise<object> {
    this.requests++;
    const { fault } = this;
    if (fault === 'silent') await new Promise((resolve) => context.signal.addEventListener('abort', resolve));
    if (fault === 'internal') throw new GrpcError(grpcStatus.INTERNAL, 'CA is not ready');
    if (typeof fault === 'object') throw new GrpcError(fault.status, fault.details);
    const id = await this.#authenticated(context);
    const csr = this.#checkedCsr(request.csr, id);
    const lifetimeMs = this.#lifetime(Number(request.validity_duration) * 1000);
    this.issued.push(id);
    return { cert_chain: this.#answer(csr, id, lifetimeMs) };
  }

  /** The same message for every reason, as in istiod. */
  async #authenticated({ metadata, clientCertificate }: CallContext): Promise<string> {
    const [own] = clientCertificate ? Certificate.fromDer(clientCertificate.raw).names.uris : [];
    if (own !== undefined) return own;
    const { clusterId, authenticate, trustDomain } = this.#options;
    const cluster = metadata.clusterid ?? '';
    const token = /^Bearer (.+)$/.exec(metadata.authorization ?? '')?.[1];
    const known = cluster === '' || cluster === clusterId;
    const caller = token !== undefined && known ? await authenticate(token) : undefined;
    if (!caller) throw new GrpcError(grpcStatus.UNAUTHENTICATED, 'request authenticate failure');
    return `spiffe://${trustDomain}/ns/${caller.namespace}/sa/${caller.account}`;
  }

  #checkedCsr(pem: string, id: string): Csr {
    let csr: Csr;
    try {
      csr = readCsr(pem);
    } catch {
      throw new GrpcError(
        grpcStatus.INVALID_ARGUMENT,
        'CSR signing error (certificate signing request is not properly encoded)',
      );
    }
    if (!csr.signatureValid) throw new GrpcError(grpcStatus.INVALID_ARGUMENT, 'CSR signature is not valid');
    const { uris, dns, ips, emails } = csr.names;
    const exact = uris.length === 1 && uris[0] === id && dns.length + ips.length + emails.length === 0;
    if (this.#options.manner === 'istio-csr' && !(exact && csr.emptySubject)) {
      throw new GrpcError(grpcStatus.UNAUTHENTICATED, 'request authenticate failure');
    }
    return csr;
  }

  #lifetime(askedMs: number): number {
    const { manner, maxLifetimeMs, authority } = this.#options;
    if (askedMs <= 0) return Math.min(authority.leafLifetimeMs, maxLifetimeMs);
    if (askedMs <= maxLifetimeMs) return askedMs;
    if (manner === 'istio-csr') return maxLifetimeMs;
    const [asked, most] = [askedMs, maxLifetimeMs].map((ms) => `${ms / 1000}s`);
    throw new GrpcError(
      grpcStatus.INVALID_ARGUMENT,
      `requested TTL ${asked} is greater than the max allowed TTL ${most}`,
    );
  }

  #answer(csr: Csr, id: string, lifetimeMs: number): string[] {
    const { authority, clock, trustDomain } = this.#options;
    switch (this.fault) {
      case 'wrongKey':
        return authority.answer(authority.sign(PrivateKey.generate(), id, lifetimeMs));
      case 'otherIdentity':
        return authority.answer(authority.sign(csr.publicKey, `spiffe://${trustDomain}/ns/other/sa/other`, lifetimeMs));
      case 'expiredLeaf':
        return authority.answer(authority.sign(csr.publicKey, id, -LONG_AGO_MS));
      case 'emptyChain':
        return [];
      case 'unchained': {
        const leaf = SandboxCa.root({ clock }).issue(csr.publicKey, { uris: [id], lifetimeMs });
        return authority.answer(leaf);
      }
      case 'garbage':
        return ['-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n', authority.rootPem];
      default:
        return authority.answer(authority.sign(csr.publicKey, id, lifetimeMs));
    }
  }
}
