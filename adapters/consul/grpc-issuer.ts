import { limitedTo } from '../../src/async/linked-signal.ts';
import { sharing } from '../../src/async/sharing.ts';
import { type Channel, openChannel } from '../../src/grpc/channel.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import type { Checking, Host, Issuer } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { LastRead } from '../../src/mesh/last-read.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { createCsr } from '../../src/pki/csr.ts';
import { formatPem } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { apiCa, authorised, type ConsulTokens, type LoginPort, type LoginToken, openTokens } from './access.ts';
import {
  type ConsulConfig,
  checkTrustDomain,
  type GrpcConfig,
  type LoginConfig,
  serviceId,
  wrongName,
} from './config.ts';
import { GRPC_LOGIN_ROWS, grpcError, RetryWindow, type Row } from './errors.ts';
import {
  answered,
  examineConsul,
  presentable,
  readTrust,
  resolveServers,
  type Server,
  sameTrust,
  staleReason,
  type Trust,
} from './protocol.ts';

const CA = 'hashicorp.consul.connectca.ConnectCAService';

interface RootsAnswer {
  readonly trust_domain: string;
  readonly roots: readonly {
    readonly active: boolean;
    readonly signing_key_id: string;
    readonly root_cert: string;
    readonly intermediate_certs: readonly string[];
  }[];
}

/** Identities from the servers' gRPC API: key and request are made here, no Consul agent is needed. */
export class GrpcIssuer implements Issuer, Checking {
  readonly #config: ConsulConfig;
  readonly #host: Host;
  readonly #servers: Servers;
  readonly #tokens: ConsulTokens;
  readonly #window = new RetryWindow();
  #trust: Trust | undefined;

  constructor(config: ConsulConfig & { grpc: NonNullable<ConsulConfig['grpc']> }, host: Host) {
    this.#config = config;
    this.#host = host;
    this.#servers = new Servers(config.grpc, host);
    this.#tokens = openTokens(config, host, new GrpcLogin(this.#servers, config, host));
  }

  async issue(signal: AbortSignal): Promise<Identity> {
    const trust = await this.#currentTrust(signal);
    const key = PrivateKey.generate();
    const id = serviceId(this.#config, trust.trustDomain);
    const csr = formatPem('CERTIFICATE REQUEST', createCsr(key, { uris: [id] }));
    const answer = await this.#spaced(() =>
      this.#authorised(`certificate for ${id}`, signal, ({ channel }, metadata) =>
        channel.unary<{ cert_pem: string }>(
          { csr },
          { method: `${CA}/Sign`, metadata, deadlineMs: DEADLINE_MS, signal },
        ),
      ),
    );
    const certificates = readChain(id, answer.cert_pem);
    const [leaf] = certificates;
    const wrong = wrongName(this.#config, leaf, trust.trustDomain);
    if (wrong || leaf.publicKeyFingerprint !== key.publicKeyFingerprint) {
      throw new MeshError(
        'ERR_MESH_BAD_RESPONSE',
        `Consul signed another certificate than ${id}: ${wrong ?? 'its key is not ours'}; look at the CA provider`,
      );
    }
    const signedByNewRoot = leaf.authorityKeyId !== trust.signingKeyId;
    const now = signedByNewRoot ? await this.#currentTrust(signal) : trust;
    return { id, key, chain: presentable(certificates, now, this.#host.clock.now()), roots: now.roots };
  }

  async *roots(signal: AbortSignal): AsyncGenerator<readonly Certificate[]> {
    let last: Trust | undefined;
    for await (const trust of this.#watchRoots(signal)) {
      if (last && sameTrust(last, trust)) continue;
      last = trust;
      yield trust.roots;
    }
  }

  stale(current: Identity): string | undefined {
    return this.#trust && staleReason(this.#config, current.chain, this.#trust, this.#host.clock.now());
  }

  check(examiner: Examiner): Promise<void> {
    return examineConsul(examiner, {
      connection: (signal) => {
        const { addresses } = this.#config.grpc ?? { addresses: [] };
        return answered(this.#greet(signal), `Consul at ${addresses.join(', ')}`);
      },
      token: (signal) => this.#tokens.get(signal),
      roots: (signal) => this.#currentTrust(signal),
      leaf: async (signal) => leafOf(await this.issue(signal)),
    });
  }

  /** Without a token: a refusal proves the connection as well as an answer does. */
  #greet(signal: AbortSignal): Promise<void> {
    return this.#servers.call('roots', signal, async ({ channel }) => {
      const stream = channel.stream<object, RootsAnswer>({
        method: `${CA}/WatchRoots`,
        metadata: {},
        signal,
        request: {},
      });
      try {
        await stream[Symbol.asyncIterator]().next();
      } finally {
        stream.close();
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tokens[Symbol.asyncDispose]();
    this.#servers.close();
  }

  /** Requested again each time: trust domain and signing key of a cluster change without prior notice. */
  async #currentTrust(signal: AbortSignal): Promise<Trust> {
    const late = () =>
      new MeshError('ERR_MESH_TIMEOUT', `no roots from Consul in ${DEADLINE_MS / 1000} s; look at the servers`);
    using enough = limitedTo(this.#host.clock, DEADLINE_MS, late, signal);
    try {
      for await (const trust of this.#watchRoots(enough.signal)) return trust;
    } finally {
      enough.abort(new Error('roots were read'));
    }
    throw new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      'Consul ended the stream of roots before it named any; is this Consul?',
    );
  }

  async *#watchRoots(signal: AbortSignal): AsyncGenerator<Trust> {
    const opened = await this.#authorised('roots', signal, async ({ channel, server }, metadata) => {
      const stream = channel.stream<object, RootsAnswer>({ method: `${CA}/WatchRoots`, metadata, signal, request: {} });
      const answers = stream[Symbol.asyncIterator]();
      return { stream, answers, server, first: await answers.next() };
    });
    const { stream, answers, server } = opened;
    const share = this.#host.share ?? sharing();
    using parsed = share(`Consul roots ${server.name}`, () => new LastRead<RootsAnswer, Trust>());
    try {
      for (let next = opened.first; !next.done; next = await this.#servers.explain(server, 'roots', answers.next())) {
        const trust = parsed.value.read(next.value, (answer) => readAnswer(server, answer));
        checkTrustDomain(this.#config, trust.trustDomain);
        this.#trust = trust;
        yield trust;
      }
    } finally {
      stream.close();
    }
  }

  #authorised<T>(
    what: string,
    signal: AbortSignal,
    work: (called: ServerCall, metadata: Readonly<Record<string, string>>) => Promise<T>,
  ): Promise<T> {
    return authorised(this.#tokens, signal, (token) => {
      const metadata: Record<string, string> = token === undefined ? {} : { 'x-consul-token': token };
      return this.#servers.call(what, signal, (called) => work(called, metadata));
    });
  }

  /** Under the rate limit on signing: one more attempt at a random moment in each window of 30 s. */
  async #spaced<T>(work: () => Promise<T>): Promise<T> {
    try {
      const result = await work();
      this.#window.reset();
      return result;
    } catch (error) {
      if (!(error instanceof MeshError) || error.code !== 'ERR_MESH_RATE_LIMITED') throw error;
      const afterMs = this.#window.next(this.#host.clock.monotonic(), this.#host.random);
      throw new MeshError(error.code, error.message, { retry: { afterMs }, cause: error });
    }
  }
}

function readAnswer(server: Server, { trust_domain, roots }: RootsAnswer): Trust {
  const raw = roots.map((root) => ({
    active: root.active,
    signingKeyId: root.signing_key_id,
    rootCert: root.root_cert,
    intermediateCerts: root.intermediate_certs,
  }));
  return readTrust(`Consul server ${server.name}: roots`, trust_domain, raw);
}

function readChain(id: string, pem: string): readonly [Certificate, ...Certificate[]] {
  try {
    const [leaf, ...rest] = parseCertificates(pem);
    if (leaf) return [leaf, ...rest];
  } catch (cause) {
    throw new MeshError('ERR_MESH_BAD_RESPONSE', `the certificate for ${id} cannot be read; look at the CA provider`, {
      cause,
    });
  }
  throw new MeshError('ERR_MESH_BAD_RESPONSE', `no certificate came for ${id}; look at the CA provider`);
}

const ACL = 'hashicorp.consul.acl.ACLService';
const DEADLINE_MS = 30_000;
/**
 * Servers replicate a token in a few milliseconds; one that is asked earlier caches for 30 s that it does not exist.
 */
const SETTLE_MS = 100;

interface LoginAnswer {
  readonly token: { readonly secret_id: string } | null;
}

class GrpcLogin implements LoginPort {
  readonly #servers: Servers;
  readonly #host: Host;
  readonly #partition: string | undefined;

  constructor(servers: Servers, config: ConsulConfig, host: Host) {
    this.#servers = servers;
    this.#host = host;
    this.#partition = config.partition;
  }

  async login(config: LoginConfig, bearer: string, signal: AbortSignal): Promise<LoginToken> {
    const { method, meta, namespace, datacenter } = config;
    const request = {
      auth_method: method,
      bearer_token: bearer,
      meta,
      ...(namespace === undefined ? {} : { namespace }),
      ...(this.#partition === undefined ? {} : { partition: this.#partition }),
      ...(datacenter === undefined ? {} : { datacenter }),
    };
    const answer = await this.#servers.call(
      `login with ${method}`,
      signal,
      ({ channel }) => channel.unary<LoginAnswer>(request, { method: `${ACL}/Login`, deadlineMs: DEADLINE_MS, signal }),
      GRPC_LOGIN_ROWS,
    );
    const secret = answer.token?.secret_id;
    if (secret) return { secret };
    throw new MeshError('ERR_MESH_BAD_RESPONSE', `login with ${method}: an answer without a token; is this Consul?`);
  }

  settled(_token: string, signal: AbortSignal): Promise<void> {
    return this.#host.clock.sleep(SETTLE_MS, signal);
  }

  async logout(token: string, signal: AbortSignal): Promise<void> {
    const call = { method: `${ACL}/Logout`, deadlineMs: DEADLINE_MS, signal };
    await this.#servers.call('logout', signal, ({ channel }) => channel.unary({ token }, call));
  }
}

/** Servers allow a ping each 15 s and none without a stream. */
const KEEPALIVE = { timeMs: 30_000, timeoutMs: 30_000, idle: false };

interface ServerCall {
  readonly channel: Channel;
  readonly server: Server;
}

/** Several servers of one cluster, one at a time; the next one when this one is down or has no capacity. */
class Servers {
  readonly #config: GrpcConfig;
  readonly #host: Host;
  readonly #channels = new Map<string, { readonly channel: Channel; readonly ca: string | undefined }>();
  /** Empty: names are resolved at the next call. */
  #servers: readonly Server[] = [];
  #at = 0;

  constructor(config: GrpcConfig, host: Host) {
    this.#config = config;
    this.#host = host;
  }

  /** Rejects with a MeshError about the last server tried; `first` has the meanings of statuses for this call only. */
  async call<T>(
    what: string,
    signal: AbortSignal,
    work: (called: ServerCall) => Promise<T>,
    first: readonly Row[] = [],
  ): Promise<T> {
    const servers = await this.#known(signal);
    for (let tried = 1; ; tried++) {
      const server = servers[this.#at % servers.length];
      if (!server) throw new TypeError('there is always a server');
      try {
        return await work({ server, channel: await this.#channel(server, signal) });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof GrpcError)) throw error;
        if (error.reach !== 'answered') this.#drop(server);
        const elsewhere = error.status === grpcStatus.UNAVAILABLE || error.status === grpcStatus.RESOURCE_EXHAUSTED;
        if (elsewhere) this.#leave(server, servers);
        if (elsewhere && tried < servers.length) continue;
        throw grpcError(`Consul server ${server.name}: ${what}`, error, first);
      }
    }
  }

  /**
   * The meaning of a later failure of a stream from this server; the next call uses another server if this one is down.
   */
  async explain<T>(server: Server, what: string, answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof GrpcError)) throw error;
      if (error.status === grpcStatus.UNAVAILABLE) {
        this.#leave(server, this.#servers);
        this.#servers = [];
      }
      throw grpcError(`Consul server ${server.name}: ${what}`, error);
    }
  }

  close(): void {
    for (const { channel } of this.#channels.values()) channel.close();
    this.#channels.clear();
  }

  async #known(signal: AbortSignal): Promise<readonly Server[]> {
    if (this.#servers.length > 0) return this.#servers;
    const servers = await resolveServers(this.#config.addresses, this.#config.tls?.serverName, signal);
    this.#servers = servers;
    return servers;
  }

  async #channel({ address, serverName }: Server, signal: AbortSignal): Promise<Channel> {
    const { plaintext, tls } = this.#config;
    const ca = plaintext ? undefined : await apiCa(tls, this.#host, signal);
    const known = this.#channels.get(address);
    if (known && known.ca === ca) return known.channel;
    known?.channel.close();
    const channel = openChannel({
      address,
      keepalive: KEEPALIVE,
      tls: ca === undefined ? 'plaintext' : { ca, serverName },
    });
    this.#channels.set(address, { channel, ca });
    return channel;
  }

  /** Unless another call has already moved on to the next one. */
  #leave(server: Server, servers: readonly Server[]): void {
    if (servers[this.#at % Math.max(1, servers.length)] === server) this.#at += 1;
  }

  /** No connection was established: the next use makes a new one without its back-off, to the then resolved address. */
  #drop({ address }: Server): void {
    this.#channels.get(address)?.channel.close();
    this.#channels.delete(address);
    this.#servers = [];
  }
}
