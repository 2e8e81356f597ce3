import { generateKeyPairSync, sign } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import type { Identity } from '../../src/mesh/identity.ts';

/** How one Consul is started for a case. */
export interface ConsulSetup {
  readonly acl?: boolean;
  readonly tls?: boolean;
  readonly connectDisabled?: boolean;
  readonly leaderless?: boolean;
  readonly leafLifetimeMs?: number;
  /** For cases in which certificates are judged by the machine's own time. */
  readonly realTime?: boolean;
}

export interface JwtSetup {
  readonly name: string;
  readonly publicKey: string;
  readonly issuer: string;
  readonly audience: string;
  readonly maxTokenTtlMs?: number;
}

/** A service behind a Connect sidecar, called as the gateway would. */
export interface Path extends AsyncDisposable {
  /** `allowed`, or `refused` by the sidecar's intentions. */
  call(identity: Identity): Promise<'allowed' | 'refused'>;
}

/** One Consul under test, sandbox or real, with what an operator can do to it. */
export interface ConsulTarget extends AsyncDisposable {
  readonly clock: Clock;
  readonly httpAddress: string;
  readonly grpcAddress: string;
  /** PEM, of the certificates of both APIs. */
  readonly apiCa: string | undefined;
  /** A token that may write this service. */
  createToken(service: string): Promise<string>;
  deleteLoginTokens(): Promise<void>;
  loginTokens(): Promise<number>;
  addJwtMethod(setup: JwtSetup): Promise<void>;
  rotateRoot(how: { crossSign: boolean }): Promise<void>;
  setLeafLifetime(ms: number): Promise<void>;
  /** From now on signing requests are rate-limited. */
  limitSigning(): Promise<void>;
  /** Everything in memory is lost, including the trust domain; the ports stay. */
  rebuild(): Promise<void>;
  allow(source: string, destination: string): Promise<void>;
  deny(source: string, destination: string): Promise<void>;
  path(service: string): Promise<Path>;
}

export interface ConsulKind {
  readonly name: string;
  start(setup: ConsulSetup): Promise<ConsulTarget>;
}

const ISSUER = 'https://issuer.example';
const AUDIENCE = 'consul';

/** An issuer of tokens for the jwt auth method. */
export function tokenIssuer(): { publicKey: string; issuer: string; audience: string; mint(service: string): string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    publicKey: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    issuer: ISSUER,
    audience: AUDIENCE,
    mint(service) {
      const now = Math.floor(Date.now() / 1000);
      const claims = {
        iss: ISSUER,
        aud: AUDIENCE,
        sub: service,
        service,
        iat: now - 60,
        nbf: now - 60,
        exp: now + 86_400,
      };
      const signed = `${encode({ alg: 'ES256', typ: 'JWT' })}.${encode(claims)}`;
      const signature = sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' });
      return `${signed}.${signature.toString('base64url')}`;
    },
  };
}

function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url');
}
