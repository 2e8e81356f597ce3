import { CallDeadline } from '../../src/async/clock.ts';
import { UnderWay } from '../../src/async/latest-value.ts';
import { type Channel, openChannel } from '../../src/grpc/channel.ts';
import type { DuplexStream } from '../../src/grpc/duplex.ts';
import { grpcStatus } from '../../src/grpc/error.ts';
import { messageType } from '../../src/grpc/messages.ts';
import type { Checking, Expectation, Host, Revoking, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf, sameIdentity } from '../../src/mesh/identity.ts';
import { provingRoots, type ReceivedPair, readPair } from '../../src/mesh/input.ts';
import { formatDuration } from '../../src/mesh/schema.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import type { Crl } from '../../src/pki/crl.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { parseSpiffeId } from '../../src/pki/names.ts';
import { describeIssued, istioCrls } from './ca.ts';
import { expectation, type IstioConfig, type SdsConfig } from './config.ts';
import { sdsError } from './errors.ts';

/** pilot-agent answers from memory, or within its five attempts at the CA. */
const FIRST_ANSWER_MS = 30_000;
/** After a new leaf without the root that it needs; pilot-agent pushes that root immediately after the leaf. */
const ROOT_FOLLOWS_MS = 30_000;
/** pilot-agent and SPIRE rotate at half of a leaf's life. */
const ROTATED_BY = 0.75;
/** A leaf that was already late when it arrived is given this share of its life, at least a second. */
const LATE_SHARE = 0.05;

/** Identities from a socket that serves SDS: pilot-agent, the SPIRE agent. */
export class SdsSource implements Source, Checking, Revoking {
  readonly #config: IstioConfig;
  readonly #sds: SdsConfig;
  readonly #host: Host;
  readonly #underWay = new UnderWay();
  /** Fingerprint of the last leaf that was not replaced in time. */
  #overdueLeaf: string | undefined;

  constructor(config: IstioConfig, sds: SdsConfig, host: Host) {
    this.#config = config;
    this.#sds = sds;
    this.#host = host;
  }

  async *watch(caller: AbortSignal): AsyncGenerator<Identity, void, undefined> {
    const { clock } = this.#host;
    using late = this.#underWay.begin(caller);
    const { signal } = late;
    let current: string | undefined;
    const deadline = new CallDeadline(clock, (reason) => {
      this.#overdueLeaf = current;
      late.abort(new MeshError('ERR_MESH_SILENT', reason));
    });
    // No keepalive: over a unix socket it detects nothing, and grpc-go ends connections that ping too often.
    const channel = openChannel({ address: `unix:${this.#sds.socket}`, tls: 'plaintext' });
    const state = new SdsState(this.#from, expectation(this.#config, this.#host.namespace), this.#sds, {
      now: () => clock.now(),
      readFile: (path) => this.#readFile(path, signal),
    });
    deadline.set(FIRST_ANSWER_MS, `${this.#from} ${within(FIRST_ANSWER_MS)} sent no complete identity; see its logs`);
    try {
      for await (const push of subscribe(channel, this.#subscription, signal)) {
        const identity = await this.#take(state, push);
        if (identity) {
          deadline.clear();
          yield identity;
          // The write to the cluster goes first: nothing waits for the answer.
          await nextTick();
          current = leafOf(identity).fingerprint;
          // The same leaf from a new subscription does not end the delay.
          if (this.#isOverdue(identity)) this.#host.report(this.#overdueError(identity));
          deadline.set(...this.#silence(identity));
        } else if (state.waitsForRoots) {
          const what = `${this.#from} sent a new leaf, but not its root ${within(ROOT_FOLLOWS_MS)}`;
          deadline.set(ROOT_FOLLOWS_MS, `${what}; meshcert subscribes again`);
        }
        push.accept();
      }
      signal.throwIfAborted();
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} ended the stream; meshcert opens it again`);
    } catch (error) {
      throw sdsError(error, this.#sds.socket);
    } finally {
      deadline.clear();
      channel.close();
    }
  }

  crls(signal: AbortSignal): AsyncIterable<readonly Crl[]> {
    return istioCrls(this.#host, signal);
  }

  /** One subscription, until it yields an identity. */
  async check(examiner: Examiner): Promise<void> {
    const first = async (signal: AbortSignal) => {
      for await (const identity of this.watch(signal)) return identity;
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} sent nothing`);
    };
    if (examiner.here) await examiner.look('istio-sds', first, describeIssued);
    else {
      examiner.skip('istio-sds', `the socket ${this.#sds.socket} is in the agent's pod; run meshcert doctor there`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#underWay.end(new Error('the source is disposed of'));
  }

  get #from(): string {
    return `SDS socket ${this.#sds.socket}`;
  }

  get #subscription(): Subscription {
    const { namespace } = this.#host;
    const { certificateName, bundleName, disableSpiffeValidation } = this.#sds;
    return {
      names: [certificateName, bundleName],
      nodeId: this.#sds.nodeId ?? `sidecar~127.0.0.1~meshcert.${namespace}~${namespace}.svc.cluster.local`,
      plainRoots: disableSpiffeValidation,
    };
  }

  /** Unusable content is refused and ends the stream: only a new stream makes the agent send again. */
  async #take(state: SdsState, push: Push): Promise<Identity | undefined> {
    try {
      return await state.take(push);
    } catch (error) {
      if (error instanceof MeshError) push.refuse(error.message);
      throw error;
    }
  }

  /** The time from now until a new leaf is overdue, and the reason to report then. */
  #silence(identity: Identity): [number, string] {
    const { notBefore, notAfter } = leafOf(identity);
    const due = dueOf(identity) - this.#host.clock.now();
    const ms = this.#sds.expectedRotation ?? Math.max(due, (notAfter - notBefore) * LATE_SHARE, 1000);
    return [Math.round(ms), `${this.#from} sent no new leaf ${within(ms)}; meshcert subscribes again`];
  }

  #isOverdue(identity: Identity): boolean {
    if (leafOf(identity).fingerprint === this.#overdueLeaf) return true;
    return this.#sds.expectedRotation === undefined && dueOf(identity) <= this.#host.clock.now();
  }

  #overdueError(identity: Identity): MeshError {
    const until = new Date(leafOf(identity).notAfter).toISOString();
    const what = `${this.#from} still sends a leaf that should have been replaced, and that ends at ${until}`;
    return new MeshError('ERR_MESH_SILENT', `${what}; does its agent reach the CA? meshcert subscribes again`);
  }

  async #readFile(path: string, signal: AbortSignal): Promise<string | undefined> {
    for await (const content of this.#host.file(path, signal)) return content;
    return undefined;
  }
}

/** When the next leaf is expected, epoch ms. */
const dueOf = (identity: Identity): number => {
  const { notBefore, notAfter } = leafOf(identity);
  return notBefore + (notAfter - notBefore) * ROTATED_BY;
};
const nextTick = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));
const within = (ms: number): string => `within ${formatDuration(Math.round(ms / 1000) * 1000)}`;

const TLS = 'envoy.extensions.transport_sockets.tls.v3';
const SPIFFE_VALIDATOR = `${TLS}.SPIFFECertValidatorConfig`;

interface AnyMessage {
  readonly type_url: string;
  readonly value: Uint8Array;
}

interface DataSource {
  readonly specifier?: 'filename' | 'inline_bytes' | 'inline_string' | 'environment_variable';
  readonly filename?: string;
  readonly inline_bytes?: Uint8Array;
  readonly inline_string?: string;
}

interface WireSecret {
  readonly name: string;
  readonly type?: 'tls_certificate' | 'validation_context';
  readonly tls_certificate?: {
    readonly certificate_chain: DataSource | null;
    readonly private_key: DataSource | null;
    readonly private_key_provider: { readonly provider_name: string } | null;
  };
  readonly validation_context?: {
    readonly trusted_ca: DataSource | null;
    readonly custom_validator_config: { readonly name: string; readonly typed_config: AnyMessage | null } | null;
  };
}

interface WireValidator {
  readonly trust_domains: readonly { readonly name: string; readonly trust_bundle: DataSource | null }[];
}

interface CertificateSecret {
  readonly kind: 'certificate';
  readonly name: string;
  readonly key: PrivateKey;
  readonly certificates: readonly Certificate[];
}

interface BundleSecret {
  readonly kind: 'bundle';
  readonly name: string;
  /** Roots for workloads of this trust domain; empty when the bundle is for other domains. */
  rootsFor(trustDomain: string): readonly Certificate[];
}

type Secret = CertificateSecret | BundleSecret;

/** Reads a file of the host on which the agent runs; undefined when it does not exist. */
type ReadFile = (path: string) => Promise<string | undefined>;

/** Throws a MeshError that names the resource and never quotes it. `known` are certificates that may occur again. */
async function readSecret(
  resource: AnyMessage,
  readFile: ReadFile,
  known: readonly Certificate[],
): Promise<Secret | undefined> {
  const secret = decode<WireSecret>('SDS resource', `${TLS}.Secret`, resource.value);
  const { name } = secret;
  const what = `secret "${name}"`;
  if (secret.tls_certificate && secret.type === 'tls_certificate') {
    const { certificate_chain: chain, private_key: key, private_key_provider: provider } = secret.tls_certificate;
    if (provider) {
      throw new MeshError(
        'ERR_MESH_UNSUPPORTED',
        `${what}: its key is held by a private key provider (${provider.provider_name}); turn off privateKeyProvider in this agent's ProxyConfig`,
        { retry: { afterMs: 300_000 } },
      );
    }
    const certificates = certificatesOf(what, await text(what, chain, readFile), known);
    return { kind: 'certificate', name, certificates, key: keyOf(what, await text(what, key, readFile)) };
  }
  if (secret.validation_context && secret.type === 'validation_context') {
    const { trusted_ca, custom_validator_config: custom } = secret.validation_context;
    if (custom?.typed_config) return bundleByDomain(name, custom.typed_config, readFile, known);
    const roots = certificatesOf(what, await text(what, trusted_ca, readFile), known);
    return { kind: 'bundle', name, rootsFor: () => roots };
  }
  return undefined;
}

async function bundleByDomain(
  name: string,
  config: AnyMessage,
  readFile: ReadFile,
  known: readonly Certificate[],
): Promise<BundleSecret> {
  const what = `secret "${name}"`;
  if (config.type_url.split('/').at(-1) !== SPIFFE_VALIDATOR) {
    throw new MeshError('ERR_MESH_UNSUPPORTED', `${what}: unknown validator ${config.type_url}; ask for plain roots`);
  }
  const { trust_domains } = decode<WireValidator>(what, SPIFFE_VALIDATOR, config.value);
  const roots = new Map<string, readonly Certificate[]>();
  for (const domain of trust_domains) {
    roots.set(domain.name, certificatesOf(what, await text(what, domain.trust_bundle, readFile), known));
  }
  return { kind: 'bundle', name, rootsFor: (domain) => roots.get(domain) ?? [] };
}

async function text(what: string, source: DataSource | null, readFile: ReadFile): Promise<string | Uint8Array> {
  switch (source?.specifier) {
    case 'inline_bytes':
      return source.inline_bytes ?? '';
    case 'inline_string':
      return source.inline_string ?? '';
    case 'filename': {
      const content = await readFile(source.filename ?? '');
      if (content !== undefined) return content;
      throw new MeshError(
        'ERR_MESH_CONFIG',
        `${what}: file ${source.filename} does not exist here or cannot be read; mount it`,
      );
    }
    case 'environment_variable':
      throw new MeshError('ERR_MESH_UNSUPPORTED', `${what}: it names an environment variable of the proxy`);
    default:
      throw bad(what, 'has an empty field');
  }
}

function certificatesOf(what: string, pem: string | Uint8Array, known: readonly Certificate[]): Certificate[] {
  try {
    return parseCertificates(pem, { known });
  } catch (cause) {
    throw bad(what, 'has certificates that cannot be read', cause);
  }
}

function keyOf(what: string, pem: string | Uint8Array): PrivateKey {
  try {
    return PrivateKey.fromPem(pem);
  } catch (cause) {
    throw bad(what, 'has a private key that cannot be read', cause);
  }
}

function decode<T extends object>(what: string, type: string, bytes: Uint8Array): T {
  try {
    return messageType<T>(type).decode(bytes);
  } catch (cause) {
    throw bad(what, `is not a ${type}`, cause);
  }
}

function bad(what: string, problem: string, cause?: unknown): MeshError {
  return new MeshError('ERR_MESH_BAD_RESPONSE', `${what} ${problem}; see the logs of the agent that serves it`, {
    cause,
  });
}

interface SdsContext {
  readonly now: () => number;
  readonly readFile: ReadFile;
}

/**
 * What a subscription has received so far. Pushes are partial and may repeat; a leaf may come before the root that it
 * needs, and is then held back until that root arrives.
 */
class SdsState {
  readonly #from: string;
  readonly #expectation: Expectation;
  readonly #names: Pick<SdsConfig, 'certificateName' | 'bundleName'>;
  readonly #around: SdsContext;
  #pair: ReceivedPair | undefined;
  #bundle: BundleSecret | undefined;
  #reported: Identity | undefined;

  constructor(
    from: string,
    expectation: Expectation,
    names: Pick<SdsConfig, 'certificateName' | 'bundleName'>,
    around: SdsContext,
  ) {
    this.#from = from;
    this.#expectation = expectation;
    this.#names = names;
    this.#around = around;
  }

  /** There is a leaf that does not verify under the received roots. */
  get waitsForRoots(): boolean {
    return this.#pair !== undefined && this.#bundle !== undefined && this.#rootsFor(this.#pair) === undefined;
  }

  /** The identity, if this push made a new one or changed its roots. Throws for content that can never be used. */
  async take(push: Push): Promise<Identity | undefined> {
    const { now, readFile } = this.#around;
    this.#refuseMadeUpNames(push.version);
    for (const resource of push.resources) {
      const secret = await readSecret(resource, readFile, this.#reported?.roots ?? []);
      if (secret?.kind === 'certificate' && secret.name === this.#names.certificateName) {
        this.#pair = readPair(this.#from, secret.key, secret.certificates, this.#expectation, now());
      } else if (secret?.kind === 'bundle' && secret.name === this.#names.bundleName) {
        this.#bundle = secret;
      }
    }
    const pair = this.#pair;
    const roots = pair && this.#rootsFor(pair);
    if (!roots) return undefined;
    const identity = { ...pair, roots };
    if (sameIdentity(this.#reported, identity)) return undefined;
    this.#reported = identity;
    return identity;
  }

  #rootsFor(pair: ReceivedPair): readonly Certificate[] | undefined {
    const named = this.#bundle?.rootsFor(parseSpiffeId(pair.id)?.trustDomain ?? '') ?? [];
    return provingRoots(pair, named, this.#reported?.roots ?? [], this.#around.now());
  }

  /** pilot-agent answers an unknown name with its certificate, and never pushes the next one under it. */
  #refuseMadeUpNames(version: string): void {
    const { certificateName } = this.#names;
    const fromPilotAgent = /^\d{4}-\d{2}-\d{2}T.*\/\d+$/.test(version);
    if (!fromPilotAgent || certificateName === 'default' || certificateName.startsWith('file-cert:')) return;
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `${this.#from}: pilot-agent has no certificate named "${certificateName}"; set certificateName: default`,
      { retry: { afterMs: 60_000 } },
    );
  }
}

const METHOD = 'envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets';
const TYPE_URL = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

interface Subscription {
  readonly names: readonly string[];
  readonly nodeId: string;
  /** Requests plain roots from SPIRE; pilot-agent ignores it. */
  readonly plainRoots: boolean;
}

/** One answer: whatever changed, never the whole state. */
interface Push {
  readonly version: string;
  readonly resources: readonly AnyMessage[];
  /** Acknowledges the push. */
  accept(): void;
  /** Rejects a push that can never be used; the server sends nothing then until the next rotation. */
  refuse(reason: string): void;
}

interface Response {
  readonly version_info: string;
  readonly resources: readonly AnyMessage[];
  readonly nonce: string;
}

/**
 * One subscription, state of the world. Each push must be accepted or refused before the next is read. The first
 * request never carries an error_detail: pilot-agent would crash.
 */
async function* subscribe(
  channel: Channel,
  subscription: Subscription,
  signal: AbortSignal,
): AsyncGenerator<Push, void, undefined> {
  const stream: DuplexStream<object, Response> = channel.stream({ method: METHOD, signal });
  const request = { resource_names: subscription.names, type_url: TYPE_URL };
  stream.write({ ...request, node: nodeOf(subscription) });
  let version = '';
  for await (const { version_info, resources, nonce } of stream) {
    yield {
      version: version_info,
      resources,
      accept() {
        version = version_info;
        stream.write({ ...request, version_info: version, response_nonce: nonce });
      },
      refuse(reason) {
        const error_detail = { code: grpcStatus.INVALID_ARGUMENT, message: reason };
        stream.write({ ...request, version_info: version, response_nonce: nonce, error_detail });
      },
    };
  }
}

function nodeOf({ nodeId, plainRoots }: Subscription): object {
  // Well-known types are in camelCase even if all other names keep their case.
  const metadata = plainRoots ? { fields: { disable_spiffe_cert_validation: { boolValue: true } } } : undefined;
  return { id: nodeId, cluster: 'meshcert', user_agent_name: 'meshcert', ...(metadata ? { metadata } : {}) };
}
