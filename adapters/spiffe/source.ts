import { CallDeadline } from '../../src/async/clock.ts';
import { UnderWay } from '../../src/async/latest-value.ts';
import { type CallOptions, type Channel, openChannel } from '../../src/grpc/channel.ts';
import { messageType } from '../../src/grpc/messages.ts';
import type { Checking, Expectation, Host, Revoking, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf, sameIdentity, sameLeaf, type UpstreamTrust } from '../../src/mesh/identity.ts';
import { provingRoots, readPair, unprovable } from '../../src/mesh/input.ts';
import { type Certificate, certificatesFromDer, formatCertificates } from '../../src/pki/certificate.ts';
import { Crl } from '../../src/pki/crl.ts';
import { formatPem } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { parseSpiffeId } from '../../src/pki/names.ts';
import { addressOf, type BrokerConfig, type SpiffeConfig } from './config.ts';
import { brokerError, workloadApiError } from './errors.ts';

/** The agent answers from memory. */
const FIRST_ANSWER_MS = 30_000;
/** SPIRE agents renew at half of a leaf's life. */
const ROTATED_BY = 0.75;
/** Between two attempts to hear of a leaf that is late, as a share of its life; at least a second. */
const LATE_SHARE = 0.05;

/** Identities from the SPIFFE Workload API, or from the Broker API. */
export class SvidSource implements Source, Checking, Revoking {
  /** This source tells by itself when a leaf is late. */
  readonly overdue = 1;
  readonly #config: SpiffeConfig;
  readonly #host: Host;
  readonly #endpoint: SvidEndpoint;
  readonly #underWay = new UnderWay();

  constructor(config: SpiffeConfig, host: Host) {
    this.#config = config;
    this.#host = host;
    const workload = new WorkloadEndpoint(config);
    this.#endpoint = config.broker ? new BrokerEndpoint(config.broker, workload, host) : workload;
  }

  async *watch(caller: AbortSignal): AsyncGenerator<Identity, void, undefined> {
    const { clock } = this.#host;
    using work = this.#underWay.begin(caller);
    const deadline = new CallDeadline(clock, (reason) => work.abort(new MeshError('ERR_MESH_SILENT', reason)));
    let last: Identity | undefined;
    deadline.set(FIRST_ANSWER_MS, `${this.#from} sent nothing within 30 s; see the logs of the agent`);
    try {
      for await (const response of this.#endpoint.responses(work.signal)) {
        const svid = chooseSvid(this.#from, response.svids, this.#config);
        const identity = this.#withUpstream(
          readSvid(this.#from, svid, expectation(this.#config), clock.now(), last),
          response,
          last,
        );
        if (sameIdentity(last, identity)) continue;
        const isNewLeaf = !sameLeaf(identity, last);
        last = identity;
        if (isNewLeaf) deadline.clear();
        yield identity;
        // A changed bundle does not give an old leaf more time.
        if (!isNewLeaf) continue;
        if (this.#dueOf(identity) <= clock.now()) this.#host.report(this.#late(identity));
        deadline.set(this.#patience(identity), this.#late(identity).message);
      }
      work.signal.throwIfAborted();
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} ended the stream; meshcert opens it again`);
    } catch (error) {
      throw this.#endpoint.explain(error);
    } finally {
      deadline.clear();
    }
  }

  /** By a subscription of its own: a change of the CRLs alone is no news of the identity. */
  async *crls(caller: AbortSignal): AsyncGenerator<readonly Crl[], void, undefined> {
    using work = this.#underWay.begin(caller);
    try {
      for await (const { crl } of this.#endpoint.responses(work.signal)) yield readCrls(this.#from, crl);
      work.signal.throwIfAborted();
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} ended the stream; meshcert opens it again`);
    } catch (error) {
      throw this.#endpoint.explain(error);
    }
  }

  async check(examiner: Examiner): Promise<void> {
    if (!examiner.here) {
      examiner.skip('spiffe-svid', `${this.#from} is on the agent's node; run meshcert doctor in the agent's pod`);
      return;
    }
    const first = async (signal: AbortSignal): Promise<Identity> => {
      for await (const identity of this.watch(signal)) return identity;
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} sent nothing`);
    };
    await examiner.look('spiffe-svid', first, (identity) => {
      const { notAfter, issuer } = leafOf(identity);
      const roots = `${identity.roots.length} root${identity.roots.length === 1 ? '' : 's'}`;
      return `sent ${identity.id} until ${new Date(notAfter).toISOString()}, by "${issuer}", under ${roots}`;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#underWay.end(new Error('the source is disposed of'));
  }

  #withUpstream(identity: Identity, { federated_bundles }: X509SvidResponse, last: Identity | undefined): Identity {
    const { upstreamTrustDomain } = this.#config;
    const own = parseSpiffeId(identity.id)?.trustDomain;
    if (upstreamTrustDomain === undefined || upstreamTrustDomain === own) return identity;
    const known = last?.upstream?.roots ?? [];
    return { ...identity, upstream: readUpstreamTrust(this.#from, upstreamTrustDomain, federated_bundles, known) };
  }

  get #from(): string {
    return this.#endpoint.from;
  }

  #dueOf(identity: Identity): number {
    const { notBefore, notAfter } = leafOf(identity);
    return notBefore + (notAfter - notBefore) * ROTATED_BY;
  }

  /** How long to wait for the next leaf before the stream is opened again. */
  #patience(identity: Identity): number {
    const { notBefore, notAfter } = leafOf(identity);
    const due = this.#dueOf(identity) - this.#host.clock.now();
    return Math.round(Math.max(due, (notAfter - notBefore) * LATE_SHARE, 1000));
  }

  #late(identity: Identity): MeshError {
    const until = new Date(leafOf(identity).notAfter).toISOString();
    const what = `${this.#from} sent no new certificate in three quarters of the life of the last one, which ends at ${until}`;
    return new MeshError(
      'ERR_MESH_SILENT',
      `${what}; does the SPIRE agent reach its server? meshcert subscribes again`,
    );
  }
}

/** A server that streams X.509-SVIDs. */
interface SvidEndpoint {
  /** For messages. */
  readonly from: string;
  /** Each response replaces the one before. The channel is closed when the stream is left. */
  responses(signal: AbortSignal): AsyncIterable<X509SvidResponse>;
  /** The one error of a failed stream that the agent acts on. */
  explain(error: unknown): unknown;
}

type Call = Pick<CallOptions, 'method' | 'metadata'> & { readonly request: object };

const WORKLOAD_API: Call = {
  method: 'SpiffeWorkloadAPI/FetchX509SVID',
  // Without it the server refuses each call: it shows that no browser was led to the socket.
  metadata: { 'workload.spiffe.io': 'true' },
  request: {},
};
const BROKER_API: Omit<Call, 'request'> = {
  method: 'spiffe.broker.API/SubscribeToX509SVID',
  metadata: { 'broker.spiffe.io': 'true' },
};
const REFERENCE = 'spiffe.broker.KubernetesObjectReference';

class WorkloadEndpoint implements SvidEndpoint {
  readonly #config: Pick<SpiffeConfig, 'socket' | 'address'>;

  constructor(config: Pick<SpiffeConfig, 'socket' | 'address'>) {
    this.#config = config;
  }

  get from(): string {
    return `Workload API at ${this.#config.socket ?? this.#config.address}`;
  }

  responses(signal: AbortSignal): AsyncIterable<X509SvidResponse> {
    // No keepalive: over a unix socket it finds nothing, and grpc-go ends connections that ping too often.
    return streamed(openChannel({ address: addressOf(this.#config), tls: 'plaintext' }), WORKLOAD_API, signal);
  }

  explain(error: unknown): unknown {
    return workloadApiError(error, this.from);
  }
}

/** The SVIDs of another workload. The agent connects by mutual TLS with its own SVID, which the Workload API gives it. */
class BrokerEndpoint implements SvidEndpoint {
  readonly #config: BrokerConfig;
  readonly #workload: WorkloadEndpoint;
  readonly #host: Pick<Host, 'clock' | 'namespace'>;

  constructor(config: BrokerConfig, workload: WorkloadEndpoint, host: Pick<Host, 'clock' | 'namespace'>) {
    this.#config = config;
    this.#workload = workload;
    this.#host = host;
  }

  get from(): string {
    return `Broker API at ${this.#config.socket ?? this.#config.address}`;
  }

  async *responses(signal: AbortSignal): AsyncGenerator<X509SvidResponse> {
    const own = await this.#ownSvid(signal);
    const channel = openChannel({
      address: addressOf(this.#config),
      tls: {
        ca: formatCertificates(own.roots),
        cert: formatCertificates(own.chain),
        key: own.key.toPem(),
        refuse: (uris) => this.#refusal(uris, own),
      },
    });
    yield* streamed(channel, { ...BROKER_API, request: { reference: this.#reference } }, signal);
  }

  explain(error: unknown): unknown {
    return brokerError(error, this.from);
  }

  get #reference(): object {
    const { plural, group, name } = this.#config.object;
    // Only objects beside the MeshCertificate: who may write it must not get identities of other namespaces.
    const key = { namespace: this.#host.namespace, name };
    const value = messageType(REFERENCE).encode({ type: { plural, group }, key });
    return { reference: { type_url: `type.googleapis.com/${REFERENCE}`, value } };
  }

  async #ownSvid(signal: AbortSignal): Promise<Identity> {
    const { from } = this.#workload;
    const { clientId: id } = this.#config;
    try {
      for await (const { svids } of this.#workload.responses(signal)) {
        const svid = chooseSvid(from, svids, { id, hint: undefined }, 'broker.clientId');
        return readSvid(from, svid, { form: 'spiffe', id }, this.#host.clock.now(), undefined);
      }
    } catch (error) {
      throw this.#workload.explain(error);
    }
    throw new MeshError('ERR_MESH_UNAVAILABLE', `${from} ended the stream; meshcert opens it again`);
  }

  /** Why the owner of these names is no Broker API for this agent. */
  #refusal([id, ...others]: readonly string[], own: Identity): string | undefined {
    const { serverId } = this.#config;
    const name = parseSpiffeId(id ?? '');
    if (!name || others.length > 0) return 'not for one SPIFFE ID';
    if (serverId !== undefined) return id === serverId ? undefined : 'for another SPIFFE ID than broker.serverId';
    const isAgent = name.trustDomain === parseSpiffeId(own.id)?.trustDomain && name.path.startsWith('/spire/agent/');
    return isAgent ? undefined : 'not that of a SPIRE agent of the trust domain; set broker.serverId';
  }
}

async function* streamed(channel: Channel, call: Call, signal: AbortSignal): AsyncGenerator<X509SvidResponse> {
  try {
    yield* channel.stream<object, X509SvidResponse>({ ...call, signal });
  } finally {
    channel.close();
  }
}

interface X509Svid {
  readonly spiffe_id: string;
  readonly x509_svid: Buffer;
  readonly x509_svid_key: Buffer;
  readonly bundle: Buffer;
  readonly hint: string;
}

/** Everything that the Workload API sends; it replaces what it sent before. */
interface X509SvidResponse {
  readonly svids: readonly X509Svid[];
  readonly crl: readonly Buffer[];
  /** Roots, DER, by the ID of their trust domain. */
  readonly federated_bundles: Readonly<Record<string, Buffer>>;
}

export function expectation({ id, trustDomain }: SpiffeConfig): Expectation {
  const domain = trustDomain ?? (id === undefined ? undefined : parseSpiffeId(id)?.trustDomain);
  return {
    form: 'spiffe',
    ...(id === undefined ? {} : { id }),
    ...(domain === undefined ? {} : { trustDomain: domain }),
  };
}

/** The SVID that the configuration means; `fields` are what chooses it. Of several with one hint, the first counts. */
function chooseSvid(
  from: string,
  svids: readonly X509Svid[],
  { id, hint }: Pick<SpiffeConfig, 'id' | 'hint'>,
  fields = 'id or hint',
): X509Svid {
  const fitting = svids.filter(
    (svid) => (id === undefined || svid.spiffe_id === id) && (hint === undefined || svid.hint === hint),
  );
  const [first] = fitting;
  if (first && (hint !== undefined || new Set(fitting.map((svid) => svid.spiffe_id)).size === 1)) return first;
  const offered = svids.length === 0 ? 'none' : svids.map(choice).join(', ');
  if (first) {
    throw new MeshError('ERR_MESH_CONFIG', `${from} offers several identities; set ${fields} to one of: ${offered}`, {
      retry: { afterMs: 30_000 },
    });
  }
  const wanted = [id, hint === undefined ? undefined : `hint "${hint}"`].filter((part) => part !== undefined);
  const named = wanted.length === 0 ? '' : ` for ${wanted.join(' with ')}`;
  throw new MeshError(
    'ERR_MESH_DENIED',
    `${from} offers no identity${named} (offered: ${offered}); register it, or correct ${fields}`,
  );
}

const choice = ({ spiffe_id: id, hint }: X509Svid): string => {
  const name = parseSpiffeId(id) ? id : 'an invalid SPIFFE ID';
  return /^[\x20-\x7e]{1,100}$/.test(hint) ? `${name} (hint "${hint}")` : name;
};

/** Throws a MeshError for what can never be published. `before` is what was read last. */
function readSvid(
  from: string,
  svid: X509Svid,
  expected: Expectation,
  now: number,
  before: Identity | undefined,
): Identity {
  const known = before ? [...before.chain, ...before.roots] : [];
  const certificates = certificatesOf(from, 'an X.509-SVID', svid.x509_svid, known);
  const pair = readPair(from, keyOf(from, svid.x509_svid_key), certificates, expected, now);
  if (pair.id !== svid.spiffe_id) {
    throw bad(`${from} sent a certificate for ${pair.id} as that of another SPIFFE ID; see the logs of the agent`);
  }
  const named = certificatesOf(from, 'a bundle', svid.bundle, known);
  const roots = provingRoots(pair, named, before?.roots ?? [], now);
  if (!roots) throw unprovable(from, pair);
  return { ...pair, roots };
}

/** The bundle of a federated trust domain, for a publication of its own: upstreams of that domain are verified by it alone. */
function readUpstreamTrust(
  from: string,
  trustDomain: string,
  bundles: X509SvidResponse['federated_bundles'],
  known: readonly Certificate[],
): UpstreamTrust {
  const names = Object.keys(bundles);
  const name = names.find((one) => domainOf(one) === trustDomain);
  if (name === undefined) {
    const offered = names.map(domainOf).sort().join(', ') || 'none';
    throw new MeshError(
      'ERR_MESH_DENIED',
      `${from} offers no bundle of the trust domain ${trustDomain} (offered: ${offered}); add -federatesWith to the registration entry, or correct upstreamTrustDomain`,
    );
  }
  const roots = certificatesOf(from, `a bundle of ${trustDomain}`, bundles[name] ?? Buffer.alloc(0), known);
  return { trustDomain, roots };
}

/** Servers name it `spiffe://other.example`, some without the scheme. Anything else is not repeated in messages. */
const domainOf = (id: string): string =>
  /^(?:spiffe:\/\/)?([a-z0-9._-]{1,253})\/?$/.exec(id)?.[1] ?? 'an invalid trust domain';

function readCrls(from: string, lists: readonly Buffer[]): readonly Crl[] {
  try {
    return lists.map((der) => Crl.fromDer(der));
  } catch (cause) {
    throw bad(`${from} sent a CRL that cannot be read; see the logs of the agent`, cause);
  }
}

function certificatesOf(from: string, what: string, der: Buffer, known: readonly Certificate[]): Certificate[] {
  try {
    return certificatesFromDer(der, { known });
  } catch (cause) {
    throw bad(`${from} sent ${what} that cannot be read; see the logs of the agent`, cause);
  }
}

function keyOf(from: string, der: Buffer): PrivateKey {
  try {
    return PrivateKey.fromPem(formatPem('PRIVATE KEY', der));
  } catch (cause) {
    throw bad(`${from} sent a private key that cannot be read; see the logs of the agent`, cause);
  }
}

const bad = (message: string, cause?: unknown): MeshError => new MeshError('ERR_MESH_BAD_RESPONSE', message, { cause });
