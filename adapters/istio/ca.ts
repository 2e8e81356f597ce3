import { mapStream, type StreamTransform, UnderWay } from '../../src/async/latest-value.ts';
import { type Share, type SharedHandle, sharing } from '../../src/async/sharing.ts';
import { limitedChannel } from '../../src/grpc/channel.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import type { Checking, Expectation, Host, Issuer, Revoking } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { type Claims, describeClaims, provable, readClaims, readPair, requireProvable } from '../../src/mesh/input.ts';
import { LastRead } from '../../src/mesh/last-read.ts';
import { formatDuration } from '../../src/mesh/schema.ts';
import { type Certificate, formatCertificates, parseCertificates } from '../../src/pki/certificate.ts';
import { type Crl, parseCrls } from '../../src/pki/crl.ts';
import { createCsr } from '../../src/pki/csr.ts';
import { formatPem } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { ROOT_CONFIG_MAP } from './cluster.ts';
import { bearerId, type CaConfig, expectation, type IstioConfig } from './config.ts';
import { caError } from './errors.ts';

const METHOD = 'istio.v1.auth.IstioCertificateService/CreateCertificate';
/** Istio's own client sets no deadline and hangs with its CA. */
const DEADLINE_MS = 10_000;
/** CAs cut a lifetime by seconds for skew; less than this share of the requested one is a cap, and is reported. */
const GRANTED_SHARE = 0.9;
const MINUTE_MS = 60_000;
/**
 * Concurrent requests to one CA. A thousand at once would each wait for all, and all would be late; istiod signs about
 * a hundred a second for each core.
 */
const AT_ONCE = 32;

/** Identities from istiod's CA, or from anything that speaks its API, such as istio-csr. */
export class CaIssuer implements Issuer, Checking, Revoking {
  readonly #config: IstioConfig;
  readonly #ca: CaConfig;
  readonly #host: Host;
  readonly #share: Share;
  readonly #roots: CaRoots;
  readonly #underWay = new UnderWay();
  /** Whether the last leaf verified under the roots of its time. */
  #agrees = true;
  /** Detected by presence: absent when the CA's roots say nothing about those of workloads. */
  readonly roots?: (signal: AbortSignal) => AsyncIterable<readonly Certificate[]>;

  constructor(config: IstioConfig, ca: CaConfig, host: Host) {
    this.#config = config;
    this.#ca = ca;
    this.#host = host;
    this.#share = host.share ?? sharing();
    this.#roots = new CaRoots(ca.root, host);
    if (ca.includeCaRoots && ca.root.inline === undefined) this.roots = (signal) => this.#roots.changes(signal);
  }

  async issue(caller: AbortSignal): Promise<Identity> {
    using issuing = this.#underWay.begin(caller);
    const { signal } = issuing;
    const roots = await this.#roots.current(signal);
    const token = await this.#token(signal);
    const claims = readClaims(token);
    const key = PrivateKey.generate();
    const elements = await this.#ask(key, roots, { token, claims, id: this.#idOf(claims) }, signal);
    const now = this.#host.clock.now();
    const answer = readAnswer(this.#from, elements, roots);
    const pair = readPair(this.#from, key, answer.chain, this.#expectation, now);
    requireProvable(this.#from, pair, answer.roots, now);
    this.#agrees = provable(pair, roots, now);
    this.#tellLifetime(pair.chain[0]);
    return { ...pair, roots: answer.roots };
  }

  /** The mesh dropped the root of this leaf: its peers will refuse it when they follow. */
  stale(current: Identity): string | undefined {
    // An expired leaf is due anyway; only its root is checked here.
    const at = Math.min(this.#host.clock.now(), leafOf(current).notAfter - 1);
    const { named } = this.#roots;
    if (!named || !this.#agrees || provable(current, named, at)) return undefined;
    return `${this.#roots.place} no longer has the root of this certificate`;
  }

  crls(signal: AbortSignal): AsyncIterable<readonly Crl[]> {
    return istioCrls(this.#host, signal);
  }

  /** Roots, connection, token, then a real certificate. */
  async check(examiner: Examiner): Promise<void> {
    const roots = await examiner.look(
      'istio-root',
      (signal) => this.#roots.current(signal),
      ({ length }) => `${length} root${length === 1 ? '' : 's'} in ${this.#roots.place}`,
    );
    const connected =
      roots !== undefined &&
      (await examiner.look(
        'istio-connection',
        (signal) => this.#greet(signal),
        (text) => text,
      ));
    const token = await examiner.look(
      'istio-token',
      (signal) => this.#token(signal),
      (text) => `token ${describeClaims(readClaims(text))}`,
    );
    if (!examiner.issue) examiner.skip('istio-issue', 'no certificate was requested (--no-issue)');
    else if (connected && token !== undefined)
      await examiner.look('istio-issue', (signal) => this.issue(signal), describeIssued);
  }

  /** A request without a token is refused before anything is signed: the refusal proves the connection. */
  async #greet(signal: AbortSignal): Promise<string> {
    const roots = await this.#roots.current(signal);
    using held = this.#connect(roots);
    try {
      await held.value.channel.unary({ csr: '' }, { method: METHOD, metadata: {}, deadlineMs: DEADLINE_MS, signal });
    } catch (cause) {
      const refused = cause instanceof GrpcError && cause.reach === 'answered';
      if (!refused || cause.status === grpcStatus.UNIMPLEMENTED || cause.status === grpcStatus.UNAVAILABLE)
        throw this.#explain(cause, undefined);
    }
    return `${this.#from} proves its name and responds`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#underWay.end(new Error('the issuer is disposed of'));
  }

  get #from(): string {
    const { address, serverName } = this.#ca;
    return `CA ${serverName === undefined ? address : `${serverName} at ${address}`}`;
  }

  get #expectation(): Expectation {
    return expectation(this.#config, this.#host.namespace);
  }

  #token(signal: AbortSignal): Promise<string> {
    const { address, audience, serviceAccount: name, tokenFile: file } = this.#ca;
    const { namespace } = this.#host;
    const serviceAccount = name === undefined ? undefined : { name, namespace };
    const destinations = [{ address, secure: true }];
    return this.#host.token({ audience, destinations, file, serviceAccount }, signal);
  }

  /** istiod uses only the token; istio-csr requires the request to name the same identity. */
  #idOf(claims: Claims | undefined): string {
    const id = this.#expectation.id ?? bearerId(this.#config, claims);
    if (id !== undefined) return id;
    throw new MeshError(
      'ERR_MESH_TOKEN',
      `the token for ${this.#from}, ${describeClaims(claims)}, is not a ServiceAccount's; correct tokenFile, or set id`,
    );
  }

  async #ask(
    key: PrivateKey,
    roots: readonly Certificate[],
    bearer: { readonly token: string; readonly claims: Claims | undefined; readonly id: string },
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const { ttl = 0, clusterId } = this.#ca;
    const request = {
      csr: formatPem('CERTIFICATE REQUEST', createCsr(key, { uris: [bearer.id] })),
      validity_duration: String(Math.floor(ttl / 1000)),
    };
    const metadata = { authorization: `Bearer ${bearer.token.trim()}`, clusterid: clusterId };
    using held = this.#connect(roots);
    const { channel, turns } = held.value;
    using _turn = await turns.take(signal);
    try {
      const options = { method: METHOD, metadata, deadlineMs: DEADLINE_MS, signal };
      return (await channel.unary<{ cert_chain: readonly string[] }>(request, options)).cert_chain;
    } catch (cause) {
      throw this.#explain(cause, bearer.claims);
    }
  }

  /**
   * For this call and those that are due at the same time: before the next one the CA may have moved to another root.
   */
  #connect(roots: readonly Certificate[]) {
    const { address, serverName } = this.#ca;
    const ca = formatCertificates(roots);
    return this.#share(`istio-ca ${JSON.stringify([address, serverName, ca])}`, () =>
      limitedChannel({ address, tls: { ca, serverName } }, AT_ONCE),
    );
  }

  #explain(cause: unknown, claims: Claims | undefined): unknown {
    const { audience, clusterId } = this.#ca;
    return caError(cause, { from: this.#from, audience, clusterId, claims, now: this.#host.clock.now() });
  }

  #tellLifetime(leaf: Certificate | undefined): void {
    const { ttl } = this.#ca;
    if (!leaf || ttl === undefined) return;
    const grantedMs = leaf.notAfter - this.#host.clock.now();
    if (grantedMs >= ttl * GRANTED_SHARE) return;
    const [granted, asked] = [formatDuration(Math.ceil(grantedMs / MINUTE_MS) * MINUTE_MS), formatDuration(ttl)];
    this.#host.log.warn(
      { granted, asked },
      `${this.#from} granted ${granted} instead of the requested ${asked}; lower ttl`,
    );
  }
}

/** What `doctor` says of a certificate that it requested. */
export const describeIssued = (identity: Identity): string => {
  const { notAfter, issuer } = leafOf(identity);
  const until = new Date(notAfter).toISOString();
  const roots = `${identity.roots.length} root${identity.roots.length === 1 ? '' : 's'}`;
  return `issued ${identity.id} until ${until}, by "${issuer}", under ${roots}; it was discarded`;
};

interface CaAnswer {
  /** Leaf first; self-signed ones are left out. */
  readonly chain: readonly Certificate[];
  readonly roots: readonly Certificate[];
}

/**
 * `cert_chain` has the leaf, the intermediates one by one, and last the root, or all roots in that one element. With a
 * plug-in CA the root may be among the intermediates too. `known` are the roots that are most likely in the answer.
 */
function readAnswer(from: string, elements: readonly string[], known: readonly Certificate[]): CaAnswer {
  if (elements.length < 2) {
    throw new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      `${from} sent ${elements.length} certificates; expected a leaf and a root. See its logs`,
    );
  }
  try {
    const lower = parseCertificates(elements.slice(0, -1).join('\n'));
    const last = elements.at(-1) ?? '';
    const roots = last === formatCertificates(known) ? known : parseCertificates(last);
    return { chain: lower.filter(({ selfSigned }) => !selfSigned), roots };
  } catch (cause) {
    throw new MeshError('ERR_MESH_BAD_RESPONSE', `${from} sent certificates that cannot be read; see its logs`, {
      cause,
    });
  }
}

type RootsHost = Pick<Host, 'configMap' | 'clusterTrustBundle' | 'file' | 'namespace' | 'report' | 'share'>;
type Roots = readonly Certificate[];
/** The text of a file or a ClusterTrustBundle, or the data of a ConfigMap. */
type Content = string | Readonly<Record<string, string>> | undefined;

/** The roots that the CA is verified against, from the place in the configuration. */
class CaRoots implements StreamTransform<Content, Roots> {
  readonly #host: RootsHost;
  readonly #config: CaConfig['root'];
  /** While it has followers: the parsed value, shared by all readers of the same place. */
  #parsed: SharedHandle<LastRead<string, Roots>> | undefined;
  #named: Roots | undefined;

  constructor(config: CaConfig['root'], host: RootsHost) {
    this.#host = host;
    this.#config = config;
  }

  /** `ConfigMap edge/istio-ca-root-cert`. */
  get place(): string {
    const { inline, file, clusterTrustBundle } = this.#config;
    const { name, namespace } = this.#configMap;
    if (inline !== undefined) return 'root.inline';
    if (clusterTrustBundle) return `ClusterTrustBundle ${clusterTrustBundle.name}`;
    return file !== undefined ? `file ${file}` : `ConfigMap ${namespace}/${name}`;
  }

  /** The last valid ones of `changes`, also after its end. */
  get named(): Roots | undefined {
    return this.#named;
  }

  /** The last valid ones while `changes` is followed, so that a renewal costs no read; otherwise read again. */
  async current(signal: AbortSignal): Promise<Roots> {
    if (this.#config.inline !== undefined) return this.#parse(this.#config.inline);
    if (this.#parsed && this.#named) return this.#named;
    for await (const content of this.#contents(signal)) return this.#readShared(this.#textOf(content));
    signal.throwIfAborted();
    throw new MeshError('ERR_MESH_CONFIG', `${this.place} could not be read; meshcert tries again`);
  }

  /** Now and at each change; unusable content is reported and skipped. */
  changes(signal: AbortSignal): AsyncIterable<Roots> {
    return mapStream(this.#contents(signal), this);
  }

  read(content: Content): Roots | undefined {
    try {
      const text = this.#textOf(content);
      this.#parsed ??= this.#shared();
      this.#named = this.#parsed.value.read(text, (pem) => this.#parse(pem));
      return this.#named;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#host.report(error);
      return undefined;
    }
  }

  over(): void {
    this.#parsed?.[Symbol.dispose]();
    this.#parsed = undefined;
  }

  /** Of all readers of the same place, such as a thousand MeshCertificates of one mesh. */
  #shared(): SharedHandle<LastRead<string, Roots>> {
    const share: Share = this.#host.share ?? sharing();
    return share(`istio roots in ${this.place}, ${this.#configMap.key}`, () => new LastRead());
  }

  #readShared(text: string): Roots {
    using parsed = this.#shared();
    return parsed.value.read(text, (pem) => this.#parse(pem));
  }

  get #configMap() {
    const { name = ROOT_CONFIG_MAP, key = 'root-cert.pem', namespace } = this.#config.configMap ?? {};
    return { name, key, namespace: namespace ?? this.#host.namespace };
  }

  #contents(signal: AbortSignal): AsyncIterable<Content> {
    const { file, clusterTrustBundle } = this.#config;
    if (clusterTrustBundle) return this.#host.clusterTrustBundle(clusterTrustBundle.name, signal);
    if (file !== undefined) return this.#host.file(file, signal);
    const { name, namespace } = this.#configMap;
    return this.#host.configMap({ name, namespace }, signal);
  }

  #textOf(content: Content): string {
    const { key } = this.#configMap;
    const text = typeof content === 'object' ? content[key] : content;
    if (text !== undefined) return text;
    const { file, clusterTrustBundle } = this.#config;
    const next = clusterTrustBundle
      ? 'does not exist: istiod writes it with ENABLE_CLUSTER_TRUST_BUNDLE_API=true, where the API server serves v1beta1 of it (--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true); set both, or correct root'
      : file !== undefined
        ? 'does not exist or cannot be read: mount it, or correct root.file'
        : `with key ${key} does not exist: istiod writes it into the namespaces that it discovers, and with ENABLE_CLUSTER_TRUST_BUNDLE_API=true a ClusterTrustBundle in its place; set root.clusterTrustBundle then, or root if it is elsewhere`;
    throw new MeshError('ERR_MESH_CONFIG', `${this.place} ${next}`);
  }

  #parse(text: string): Roots {
    try {
      return parseCertificates(text);
    } catch (cause) {
      throw new MeshError('ERR_MESH_CONFIG', `${this.place} has no certificates that can be read; correct it`, {
        cause,
      });
    }
  }
}

/** What istiod writes into every namespace when its plug-in CA has CRLs (Istio 1.27 and later). */
export const CRL_CONFIG_MAP = 'istio-ca-crl';
const KEY = 'ca-crl.pem';

/** The CRLs that istiod publishes, now and at each change; none while the ConfigMap does not exist. */
export async function* istioCrls(
  host: Pick<Host, 'configMap' | 'namespace'>,
  signal: AbortSignal,
): AsyncGenerator<readonly Crl[]> {
  const { namespace } = host;
  for await (const data of host.configMap({ name: CRL_CONFIG_MAP, namespace }, signal)) {
    yield read(data?.[KEY] ?? '', `ConfigMap ${namespace}/${CRL_CONFIG_MAP}, key ${KEY},`);
  }
}

function read(pem: string, from: string): readonly Crl[] {
  try {
    return parseCrls(pem);
  } catch (cause) {
    const message = `${from} has no CRLs that can be read; correct ${KEY} in the Secret cacerts of istiod`;
    throw new MeshError('ERR_MESH_BAD_RESPONSE', message, { cause });
  }
}
