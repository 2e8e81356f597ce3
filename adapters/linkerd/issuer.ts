import type { Clock } from '../../src/async/clock.ts';
import { mapStream } from '../../src/async/latest-value.ts';
import { type Share, sharing } from '../../src/async/sharing.ts';
import { limitedChannel } from '../../src/grpc/channel.ts';
import type { Checking, Host, Issuer } from '../../src/mesh/adapter.ts';
import type { Targeting, TargetRules } from '../../src/mesh/cluster.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { findPath, reachesRootInTime } from '../../src/pki/chain.ts';
import { createCsr } from '../../src/pki/csr.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import {
  AUDIENCE,
  accountOf,
  identityOf,
  identityServiceName,
  type LinkerdConfig,
  requireLabels,
  type ServiceAccountName,
} from './config.ts';
import { type ControlPlane, controlPlane, targetRules, trustRoots, WatchedConfigMap } from './control-plane.ts';
import { certifyError } from './errors.ts';

export class LinkerdIssuer implements Issuer, Checking, Targeting {
  readonly #config: LinkerdConfig;
  readonly #host: Host;
  readonly #share: Share;
  readonly #plane: WatchedConfigMap<ControlPlane>;
  readonly #roots: WatchedConfigMap<readonly Certificate[]>;

  constructor(config: LinkerdConfig, host: Host) {
    this.#config = config;
    this.#host = host;
    this.#share = host.share ?? sharing();
    this.#plane = new WatchedConfigMap(host, config, controlPlane);
    this.#roots = new WatchedConfigMap(host, config, trustRoots);
  }

  async issue(signal: AbortSignal): Promise<Identity> {
    const { clock } = this.#host;
    const [plane, roots] = await Promise.all([this.#plane.current(signal), this.#roots.current(signal)]);
    const { token, account } = await this.#token(plane, signal);
    const id = identityOf(account, plane);
    const key = PrivateKey.generate();
    const csr = createCsr(key, { dns: [id] });
    const asking = { now: () => clock.now(), share: this.#share };
    const chain = await certify(this.#service(plane, roots), { identity: id, token, csr }, asking, signal);
    const leaf = checkLeaf(chain, id, key, clock.now());
    await untilValid(leaf, clock, (error) => this.#host.report(error), signal);
    return { id, key, chain, roots };
  }

  roots(signal: AbortSignal): AsyncIterable<readonly Certificate[]> {
    return this.#roots.changes(signal);
  }

  stale(current: Identity): string | undefined {
    const [leaf, ...above] = current.chain;
    const found = leaf && findPath(leaf, above, current.roots, this.#host.clock.now());
    return found && !reachesRootInTime(found) ? "the leaf is no longer under any of Linkerd's trust roots" : undefined;
  }

  targets(signal: AbortSignal): AsyncIterable<TargetRules> {
    return mapStream(this.#plane.changes(signal), { read: (plane) => targetRules(this.#config, plane) });
  }

  /**
   * Configuration, roots, token, connection, then a certificate, for which Linkerd leaves an Event on the
   * ServiceAccount.
   */
  async check(examiner: Examiner): Promise<void> {
    const now = this.#host.clock.now();
    const plane = await examiner.look(
      'linkerd-config',
      (signal) => this.#plane.current(signal),
      ({ namespace, trustDomain }) => `control plane in ${namespace}, trust domain ${trustDomain}`,
    );
    const roots = await examiner.look(
      'linkerd-roots',
      (signal) => this.#roots.current(signal),
      (found) => `${found.length} trust root${found.length === 1 ? '' : 's'}`,
    );
    for (const root of roots ?? []) {
      if (root.notAfter - now > EXPIRY_WARNING_MS) continue;
      const end = new Date(root.notAfter).toISOString();
      const title = root.subject || root.fingerprint;
      examiner.fail(
        'linkerd-root-expiry',
        `the trust root ${title} ends at ${end}; rotate it, which takes a restart of every meshed pod`,
      );
    }
    if (!plane) return;
    const token = await examiner.look(
      'linkerd-token',
      (signal) => this.#token(plane, signal),
      ({ account }) => `identity will be ${identityOf(account, plane)}`,
    );
    if (!roots) return;
    const service = this.#service(plane, roots);
    const connected = await examiner.look(
      'linkerd-connection',
      (signal) => greet(service, { now: () => now, share: this.#share }, signal),
      () => `${service.serverName} answers at ${service.address}`,
    );
    if (!examiner.issue) examiner.skip('linkerd-issue', 'no certificate was requested (--no-issue)');
    else if (connected && token) {
      await examiner.look(
        'linkerd-issue',
        (signal) => this.issue(signal),
        (identity) =>
          `issued ${identity.id} until ${new Date(leafOf(identity).notAfter).toISOString()}; it was discarded`,
      );
    }
  }

  /** A fresh token and its account. */
  async #token(
    { address }: ControlPlane,
    signal: AbortSignal,
  ): Promise<{ readonly token: string; readonly account: ServiceAccountName }> {
    const { serviceAccount, tokenFile } = this.#config;
    const request = { audience: AUDIENCE, destinations: [{ address, secure: true }] };
    if (serviceAccount) {
      const { name, namespace = this.#host.namespace } = serviceAccount;
      const account = requireLabels({ name, namespace });
      return { token: await this.#host.token({ ...request, serviceAccount: account }, signal), account };
    }
    const token = await this.#host.token({ ...request, file: tokenFile }, signal);
    return { token, account: requireLabels(accountOf(token, `token file ${tokenFile}`)) };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #service(plane: ControlPlane, roots: readonly Certificate[]): IdentityService {
    return {
      address: plane.address,
      serverName: identityServiceName(plane),
      roots,
    };
  }
}

/** `linkerd check` warns this early about trust anchors. */
const EXPIRY_WARNING_MS = 60 * 86_400_000;

/** The service sets no limit of its own; its TokenReview takes milliseconds. */
const DEADLINE_MS = 10_000;
/** Concurrent requests: each costs the service a review of the token, which the API server limits. */
const AT_ONCE = 32;

interface IdentityService {
  /** `host:port`. */
  readonly address: string;
  /** Both the SNI by which its proxy recognises connections for itself, and the name in its certificate. */
  readonly serverName: string;
  /** Its certificate must verify under these. */
  readonly roots: readonly Certificate[];
}

interface CertifyRequest {
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
  using held = share(`linkerd ${JSON.stringify([address, tls])}`, () => limitedChannel({ address, tls }, AT_ONCE));
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

/**
 * Linkerd backdates leaves by 20 s. A clock that is slightly further behind waits until the leaf is valid; one that is
 * a minute or more behind would wait at each renewal and misjudge every expiry, so it is an error.
 */
const LONGEST_WAIT_MS = 60_000;

/** Refuses a leaf that does not match the request; Linkerd's proxies check the same for theirs. */
function checkLeaf(chain: readonly Certificate[], identity: string, key: PrivateKey, now: number): Certificate {
  const [leaf] = chain;
  const wrong = (what: string) =>
    new MeshError('ERR_MESH_BAD_RESPONSE', `Linkerd's certificate for ${identity} ${what}`);
  if (!leaf) throw wrong('is missing');
  if (leaf.publicKeyFingerprint !== key.publicKeyFingerprint) throw wrong('is for another key; meshcert discards it');
  if (!leaf.names.dns.includes(identity)) {
    throw wrong(`names ${leaf.names.dns.join(', ') || 'no DNS name'} instead; meshcert discards it`);
  }
  if (leaf.notAfter <= now) {
    throw wrong(
      `ended at ${new Date(leaf.notAfter).toISOString()}, and this machine's clock says ${new Date(now).toISOString()}; correct the clock, or renew Linkerd's issuer if it ends at that time`,
    );
  }
  if (leaf.notBefore - now > LONGEST_WAIT_MS) throw wrong(clockAdvice(leaf, now));
  return leaf;
}

/** Waits for a leaf that is not valid yet, and reports why. */
async function untilValid(
  leaf: Certificate,
  clock: Clock,
  report: (error: Error) => void,
  signal: AbortSignal,
): Promise<void> {
  const wait = leaf.notBefore - clock.now();
  if (wait <= 0) return;
  report(new MeshError('ERR_MESH_BAD_RESPONSE', `Linkerd's certificate ${clockAdvice(leaf, clock.now())}`));
  await clock.sleep(wait, signal);
}

function clockAdvice(leaf: Certificate, now: number): string {
  const seconds = Math.ceil((leaf.notBefore - now) / 1000);
  return `is valid only in ${seconds} s: this machine's clock is at least that far behind the control plane's; set it (NTP)`;
}

/** An empty request is refused before any other check: the refusal proves the connection. */
async function greet(
  service: IdentityService,
  asking: { readonly now: () => number; readonly share: Share },
  signal: AbortSignal,
): Promise<true> {
  try {
    await certify(service, { identity: '', token: '', csr: Buffer.alloc(0) }, asking, signal);
  } catch (error) {
    if (!(error instanceof MeshError && error.code === 'ERR_MESH_TOKEN')) throw error;
  }
  return true;
}
