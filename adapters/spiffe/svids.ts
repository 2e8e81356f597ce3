import type { Expectation } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Identity, UpstreamTrust } from '../../src/mesh/identity.ts';
import { provingRoots, readPair, unprovable } from '../../src/mesh/input/pair.ts';
import { type Certificate, certificatesFromDer } from '../../src/pki/certificate.ts';
import { Crl } from '../../src/pki/crl.ts';
import { formatPem } from '../../src/pki/der/pem.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { parseSpiffeId } from '../../src/pki/spiffe.ts';
import type { SpiffeConfig } from './config.ts';

export interface X509Svid {
  readonly spiffe_id: string;
  readonly x509_svid: Buffer;
  readonly x509_svid_key: Buffer;
  readonly bundle: Buffer;
  readonly hint: string;
}

/** Everything that the Workload API sends; it replaces what it sent before. */
export interface X509SvidResponse {
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
export function chooseSvid(
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
export function readSvid(
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
export function readUpstreamTrust(
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

export function readCrls(from: string, lists: readonly Buffer[]): readonly Crl[] {
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
