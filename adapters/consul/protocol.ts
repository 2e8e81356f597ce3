import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { z } from 'zod';
import { unlessAborted } from '../../src/async/linked-signal.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { parseJson } from '../../src/mesh/input.ts';
import { type Certificate, formatCertificates, parseCertificates } from '../../src/pki/certificate.ts';
import { findPath, orderChain } from '../../src/pki/chain.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { type ConsulConfig, wrongName } from './config.ts';

/** Serial numbers are left out: as JSON numbers above 2^53 they would be read wrong. */
const rootsAnswer = z.object({
  TrustDomain: z.string(),
  Roots: z
    .array(
      z.object({
        Active: z.boolean(),
        SigningKeyID: z.string().default(''),
        RootCert: z.string(),
        IntermediateCerts: z.array(z.string()).nullish(),
      }),
    )
    .nullish(),
});

const leafAnswer = z.object({ CertPEM: z.string(), PrivateKeyPEM: z.string(), ServiceURI: z.string().default('') });

export function readRoots(what: string, body: string): Trust {
  const { TrustDomain, Roots } = parsed(what, rootsAnswer, body);
  return readTrust(
    what,
    TrustDomain,
    (Roots ?? []).map((root) => ({
      active: root.Active,
      signingKeyId: root.SigningKeyID,
      rootCert: root.RootCert,
      intermediateCerts: root.IntermediateCerts ?? [],
    })),
  );
}

/** A leaf in the agent's answer, with the key of the same answer. */
export interface ReceivedLeaf {
  readonly key: PrivateKey;
  /** Leaf first, then whatever Consul stores. */
  readonly certificates: readonly [Certificate, ...Certificate[]];
}

export function readLeaf(what: string, body: string): ReceivedLeaf {
  const { CertPEM, PrivateKeyPEM } = parsed(what, leafAnswer, body);
  try {
    const [leaf, ...rest] = parseCertificates(CertPEM);
    if (!leaf) throw new TypeError('no certificate');
    const key = PrivateKey.fromPem(PrivateKeyPEM);
    if (key.publicKeyFingerprint === leaf.publicKeyFingerprint) return { key, certificates: [leaf, ...rest] };
  } catch (cause) {
    throw new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      `${what}: a certificate or key that cannot be read; restart the agent`,
      {
        cause,
      },
    );
  }
  throw new MeshError('ERR_MESH_BAD_RESPONSE', `${what}: the key does not belong to the leaf; restart the agent`);
}

/** The error never contains the text: it may hold a key. */
export function parsed<T>(what: string, schema: z.ZodType<T>, body: string): T {
  const bad = (why: string) =>
    new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      `${what}: ${why}; is this the HTTP API of Consul, without a proxy in between?`,
    );
  let value: unknown;
  try {
    value = parseJson(body);
  } catch (error) {
    throw bad(`an answer that cannot be used: ${error instanceof Error ? error.message : 'not JSON'}`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw bad(`field ${issue?.path.join('.') || 'at the top'} is missing or of another type`);
}

export interface Server {
  /** What is dialled, `host:port`. */
  readonly address: string;
  /** For messages: as configured, with the IP address where there are several. */
  readonly name: string;
  /** The name that its certificate must have; absent: the host of the address. */
  readonly serverName?: string | undefined;
}

/** All IP addresses of a host. */
export type Lookup = (host: string) => Promise<readonly string[]>;

const systemLookup: Lookup = async (host) => (await lookup(host, { all: true })).map(({ address }) => address);

/**
 * Every server behind these addresses: a headless Service has one name for all, and only a client that distinguishes
 * them can leave one that has no capacity.
 */
export async function resolveServers(
  addresses: readonly string[],
  serverName: string | undefined,
  signal: AbortSignal,
  find: Lookup = systemLookup,
): Promise<readonly Server[]> {
  const found: Server[] = [];
  let failure: unknown;
  for (const address of addresses) {
    try {
      found.push(...(await resolveOne(address, serverName, signal, find)));
    } catch (error) {
      signal.throwIfAborted();
      failure = error;
    }
  }
  if (found.length > 0) return found;
  const why = failure instanceof Error ? failure.message : String(failure);
  throw new MeshError('ERR_MESH_UNREACHABLE', `Consul servers ${addresses.join(', ')}: ${why}; check grpc.addresses`, {
    cause: failure,
  });
}

async function resolveOne(
  address: string,
  serverName: string | undefined,
  signal: AbortSignal,
  find: Lookup,
): Promise<Server[]> {
  const at = address.lastIndexOf(':');
  const host = address.slice(0, at).replace(/^\[|\]$/g, '');
  const port = address.slice(at + 1);
  if (isIP(host)) return [{ address, name: address, serverName }];
  const ips = [...new Set(await unlessAborted(find(host), signal))];
  if (ips.length < 2) return [{ address, name: address, serverName }];
  return ips.map((ip) => ({
    address: `${isIP(ip) === 6 ? `[${ip}]` : ip}:${port}`,
    name: `${address} (${ip})`,
    serverName: serverName ?? host,
  }));
}

/** Consul's answer about its CA, over either protocol. */
export interface Trust {
  /** `<uuid>.consul`. */
  readonly trustDomain: string;
  /** Authority key identifier of leaves that are signed now; hex without colons. */
  readonly signingKeyId: string;
  /** The active root first, then those still trusted. */
  readonly roots: readonly Certificate[];
  /** Of the active root: cross-signed copies and local signing certificates. */
  readonly intermediates: readonly Certificate[];
}

interface RawRoot {
  readonly active: boolean;
  readonly signingKeyId: string;
  readonly rootCert: string;
  readonly intermediateCerts: readonly string[];
}

/** Throws ERR_MESH_BAD_RESPONSE for an invalid answer, such as no root or two active ones. */
export function readTrust(what: string, trustDomain: string, raw: readonly RawRoot[]): Trust {
  const bad = (why: string, cause?: unknown) =>
    new MeshError('ERR_MESH_BAD_RESPONSE', `${what}: ${why}; look at the CA with "consul connect ca get-config"`, {
      ...(cause === undefined ? {} : { cause }),
    });
  const active = raw.filter((root) => root.active);
  const [first] = active;
  if (!first || active.length > 1) throw bad(`expected one active root, found ${active.length} among ${raw.length}`);
  if (trustDomain === '') throw bad('no trust domain');
  try {
    return {
      trustDomain: trustDomain.toLowerCase(),
      signingKeyId: keyId(first.signingKeyId),
      roots: unique(
        [first, ...raw.filter((root) => root !== first)].flatMap((root) => parseCertificates(root.rootCert)),
      ),
      intermediates: first.intermediateCerts.flatMap((pem) => parseCertificates(pem)),
    };
  } catch (cause) {
    throw bad('a root that cannot be read', cause);
  }
}

/** `aa:bb:CC` → `aabbcc`. */
export function keyId(text: string): string {
  return text.replaceAll(':', '').toLowerCase();
}

/** Whether two answers are equal in all parts that we use. */
export function sameTrust(a: Trust, b: Trust): boolean {
  return a === b || fingerprintOf(a) === fingerprintOf(b);
}

function fingerprintOf(trust: Trust): string {
  return [trust.trustDomain, trust.signingKeyId, formatCertificates([...trust.roots, ...trust.intermediates])].join(
    '\n',
  );
}

function unique(certificates: readonly Certificate[]): Certificate[] {
  return [...new Map(certificates.map((certificate) => [certificate.fingerprint, certificate])).values()];
}

type ConsulExamination<T> = (signal: AbortSignal) => Promise<T>;

const describeTrust = ({ trustDomain, roots }: Trust): string =>
  `trust domain ${trustDomain}, ${roots.length} root${roots.length === 1 ? '' : 's'}`;

const describeLeaf = (leaf: Certificate): string =>
  `issued ${leaf.names.uris[0]} until ${new Date(leaf.notAfter).toISOString()}; it was discarded`;

/** Connection, token, roots, leaf: stops at the first failure, since the following checks would repeat it. */
export async function examineConsul(
  examiner: Examiner,
  looks: {
    /** Without a token. */
    readonly connection: ConsulExamination<string>;
    /** Undefined: none is configured. */
    readonly token: ConsulExamination<string | undefined>;
    readonly roots: ConsulExamination<Trust>;
    readonly leaf: ConsulExamination<Certificate>;
  },
): Promise<void> {
  const connected = await examiner.look('consul-connection', looks.connection, (text) => text);
  const token = await examiner.look(
    'consul-token',
    async (signal) => ({ sent: (await looks.token(signal)) !== undefined }),
    ({ sent }) => (sent ? 'a token is available' : 'no token is configured'),
  );
  if (!connected || !token) return;
  const trust = await examiner.look('consul-roots', looks.roots, describeTrust);
  if (!examiner.issue) examiner.skip('consul-issue', 'no certificate was requested (--no-issue)');
  else if (trust) await examiner.look('consul-issue', looks.leaf, describeLeaf);
}

/** The answer came from Consul, even if it refuses a request without a token. */
export async function answered(request: Promise<unknown>, from: string): Promise<string> {
  try {
    await request;
  } catch (error) {
    const refused = error instanceof MeshError && (error.code === 'ERR_MESH_DENIED' || error.code === 'ERR_MESH_TOKEN');
    if (!refused) throw error;
  }
  return `${from} answers`;
}

/**
 * The chain to present. Consul sends every intermediate that it stores: unordered, duplicated, sometimes expired,
 * sometimes incomplete. Those that are valid now and continue the chain are used; missing ones are taken from the roots
 * answer.
 */
export function presentable(received: readonly Certificate[], trust: Trust, now: number): Certificate[] {
  const [leaf, ...rest] = received;
  if (!leaf) return [];
  const chain = linked([leaf, ...rest.filter((link) => valid(link, now))]);
  if (findPath(leaf, chain.slice(1), trust.roots, now).ok) return chain;
  return linked([leaf, ...[...rest, ...trust.intermediates].filter((link) => valid(link, now))]);
}

function linked(certificates: readonly Certificate[]): Certificate[] {
  const ordered = orderChain(certificates);
  const gap = ordered.findIndex((link, at) => at > 0 && !ordered[at - 1]?.isIssuedBy(link));
  return gap < 0 ? ordered : ordered.slice(0, gap);
}

function valid(certificate: Certificate, now: number): boolean {
  return certificate.notBefore <= now && now < certificate.notAfter;
}

/**
 * Why a chain should be replaced before its time, or undefined. The active root's id alone is not enough: a renewed
 * local signing certificate changes the signing key under the same root.
 */
export function staleReason(
  config: ConsulConfig,
  chain: readonly Certificate[],
  trust: Trust,
  now: number,
): string | undefined {
  const [leaf, ...links] = chain;
  if (!leaf) return 'the chain is empty';
  const wrong = wrongName(config, leaf, trust.trustDomain);
  if (wrong) return wrong;
  if (leaf.authorityKeyId !== trust.signingKeyId) {
    return `the leaf was signed by key ${leaf.authorityKeyId ?? 'unknown'}, the active root signs with ${trust.signingKeyId}`;
  }
  const expired = links.find((link) => link.notAfter <= now);
  return expired && `the intermediate ${expired.subject || expired.fingerprint} expired`;
}
