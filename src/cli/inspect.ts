import { adapters } from '../../adapters/index.ts';
import { fileContents, fileTexts } from '../agent/file-informer.ts';
import { systemClock } from '../async/clock.ts';
import { ANY } from '../config/allow.ts';
import type { ExpectedIdentity } from '../core/checks.ts';
import type { Preflight } from '../core/preflight.ts';
import { type CheckResult, examine } from '../core/verify.ts';
import { decodeData } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import { type Adapter, isIssuer, type SdsSocket } from '../mesh/adapter.ts';
import { offlineHost } from '../mesh/offline-host.ts';
import { formatDuration } from '../mesh/schema.ts';
import { printable } from '../mesh/secrets.ts';
import type { KubeObject } from '../objects/objects.ts';
import { type Certificate, parseCertificates } from '../pki/certificate.ts';
import { PkiError } from '../pki/der.ts';
import { PrivateKey } from '../pki/key.ts';
import { describeKeyType } from '../pki/key-type.ts';
import { opensslPreflight } from '../preflight/preflight.ts';
import { choice, duration, parsed, text, texts, UsageError, type Values } from './flags.ts';
import { CLUSTER_FLAGS, clusterOf, declare, type Io, namespaceOf } from './program.ts';
import { humanDuration, painter, readInput } from './terminal.ts';

const flags = {
  filename: texts('-f, --filename <file>', 'PEM file, "-" for standard input').offers('files'),
  ca: texts('--ca <file>', 'Roots to verify under (default: those in the files)').offers('files'),
  caSecret: text('--ca-secret <name>', 'Secret with the roots (default: ca.crt of the Secret itself)'),
  id: text('--id <id>', 'SPIFFE ID or DNS name that the leaf must carry'),
  trustDomain: text('--trust-domain <name>', 'Trust domain that the leaf must be in'),
  form: choice('--form <form>', 'How the mesh names workloads (default: as the leaf does)', ['spiffe', 'dns']),
  at: parsed('--at <time>', 'Check as if it were this time (RFC 3339)', timeOf),
  certificateName: text('--certificate-name <name>', 'Certificate to request from the socket (default: default)'),
  bundleName: text('--bundle-name <name>', 'Bundle to request from the socket (default: ROOTCA)'),
  timeout: duration('--timeout <duration>', 'How long to wait for the first answer of the socket', '10s'),
  output: choice('-o, --output <format>', 'Output format', ['text', 'json'], 'text'),
  ...CLUSTER_FLAGS,
};

export type InspectFlags = Values<typeof flags>;

export const inspect = declare({
  name: 'inspect',
  description:
    'Explains certificates: what they are, and the result of each check that a pair must pass before it is published. ' +
    'The last one is a handshake, in which OpenSSL judges the pair. ' +
    'Checks that need something you did not give, such as roots or an expected name, are marked as skipped.',
  usage: ['FILE... [--ca FILE] [flags]', 'secret NAME [--ca-secret NAME] [flags]', 'sds SOCKET [flags]'],
  parameters: [
    {
      name: 'what',
      description: 'Files, "secret NAME", or "sds SOCKET"',
      variadic: true,
      completes: 'files',
      after: { secret: undefined, sds: 'files' },
    },
  ],
  flags,
  examples: [
    {
      does: 'Check a chain and its key against the roots of another file',
      line: 'meshcert inspect pair.pem --ca roots.pem',
    },
    {
      does: 'Check what is published',
      line: 'meshcert inspect secret mesh-identity -n emissary --ca-secret mesh-ca',
    },
    {
      does: 'Read PEM from standard input',
      line: 'openssl s_client -connect web.shop:443 -showcerts </dev/null |\n  meshcert inspect -f -',
    },
    {
      does: 'Show what the SDS socket of a pod serves',
      line: 'meshcert inspect sds /var/run/secrets/workload-spiffe-uds/socket',
    },
  ],
  exitCodes: '0  every check that was made passed\n1  a check failed, or there was nothing to read\n2  wrong usage',
  run: async ({ flags, args }, io) => runInspect(flags, args, io),
});

function timeOf(text: string): number {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new Error('expected a time such as 2026-01-31T12:00:00Z');
  return ms;
}

export async function runInspect(flags: InspectFlags, args: readonly string[], io: Io): Promise<number> {
  const now = flags.at ?? systemClock.now();
  const inspected = await look(args, flags, io);
  const judges = { preflight: opensslPreflight(), now, isRealTime: flags.at === undefined };
  const report = await inspectReport(inspected, expectedOf(flags, inspected), judges);
  if (flags.output === 'json') io.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  else io.stdout.write(formatReport(report, now, painter(io.stdout, io.env)));
  return report.ok ? 0 : 1;
}

async function look(args: readonly string[], flags: InspectFlags, io: Io): Promise<Inspected> {
  const [kind, name] = args;
  const files = flags.filename;
  if (kind === undefined && files.length === 0) throw new UsageError('name a file, "secret NAME" or "sds SOCKET"');
  if (kind === 'secret' && args.length === 2 && name !== undefined) {
    const kube = clusterOf(flags, io);
    try {
      return await fromSecret(kube, { namespace: namespaceOf(flags, io), name, caName: flags.caSecret }, io.signal);
    } finally {
      kube.close();
    }
  }
  if (kind === 'sds' && args.length === 2 && name !== undefined) return socket(name, flags, io);
  return fromFiles([...args, ...files], flags.ca, io);
}

async function socket(path: string, flags: InspectFlags, io: Io): Promise<Inspected> {
  const adapter = adapters.find(({ sds }) => sds);
  if (!adapter) throw new UsageError('no adapter of this agent reads an SDS socket');
  const late = new AbortController();
  const answered = new AbortController();
  const wait = systemClock.sleep(flags.timeout, answered.signal).then(
    () => late.abort(new Error(`${path} sent no identity within ${formatDuration(flags.timeout)}`)),
    () => {},
  );
  try {
    const sds = {
      socket: path,
      ...(flags.certificateName === undefined ? {} : { certificateName: flags.certificateName }),
      ...(flags.bundleName === undefined ? {} : { bundleName: flags.bundleName }),
    };
    return await fromSocket(adapter, sds, AbortSignal.any([io.signal, late.signal]));
  } catch (error) {
    throw late.signal.aborted ? late.signal.reason : error;
  } finally {
    answered.abort(new Error('answered'));
    await wait;
  }
}

function expectedOf({ form, id, trustDomain }: InspectFlags, { chain }: Inspected): Expected {
  const seen = (chain[0]?.names.uris.length ?? 0) > 0 ? 'spiffe' : 'dns';
  return { form: form ?? seen, isFormGiven: form !== undefined, id, trustDomain };
}

/** The input: a chain, perhaps with its key and with the roots that it should verify under. */
export interface Inspected {
  readonly from: string;
  readonly chain: readonly Certificate[];
  readonly key: PrivateKey | undefined;
  /** Empty when none were given. */
  readonly bundle: readonly Certificate[];
}

/** Certificates, and a key if there is one, from PEM files that are read as one. */
export async function fromFiles(files: readonly string[], caFiles: readonly string[], io: Io): Promise<Inspected> {
  const [text, caText] = await Promise.all([readAll(files, io), readAll(caFiles, io)]);
  const from = files.join(', ');
  const { chain, roots } = split(within(from, () => parseCertificates(text)));
  const bundle = caFiles.length === 0 ? roots : within(caFiles.join(', '), () => parseCertificates(caText));
  return { from, chain, key: within(from, () => keyIn(text)), bundle };
}

/** A Secret as we publish it, with the roots of the other Secret, or otherwise of its own `ca.crt`. */
export async function fromSecret(
  kube: Kube,
  place: { readonly namespace: string; readonly name: string; readonly caName: string | undefined },
  signal: AbortSignal,
): Promise<Inspected> {
  const { namespace, name, caName } = place;
  const secret = await secretData(kube, namespace, name, signal);
  const ca = caName === undefined ? undefined : await secretData(kube, namespace, caName, signal);
  const roots = ca ? (ca['tls.crt'] ?? ca['ca.crt']) : secret['ca.crt'];
  const pem = secret['tls.crt'] ?? secret['ca.crt'];
  if (pem === undefined) throw new Error(`Secret ${namespace}/${name} has neither tls.crt nor ca.crt`);
  const key = secret['tls.key'] === undefined ? undefined : PrivateKey.fromPem(secret['tls.key']);
  const bundle = roots === undefined ? [] : parseCertificates(roots);
  return { from: `Secret ${namespace}/${name}`, chain: parseCertificates(pem), key, bundle };
}

async function secretData(kube: Kube, namespace: string, name: string, signal: AbortSignal) {
  const secret = await kube.get<KubeObject>({ apiVersion: 'v1', kind: 'Secret', namespace, name }, signal);
  if (!secret) throw new Error(`Secret ${namespace}/${name} does not exist; see -n for the namespace`);
  return decodeData(secret);
}

/** The first identity that a live SDS socket pushes. */
export async function fromSocket(adapter: Adapter, sds: SdsSocket, signal: AbortSignal): Promise<Inspected> {
  const clock = systemClock;
  const host = offlineHost({
    clock,
    random: Math.random,
    namespace: 'default',
    objects: [],
    files: {
      file: (path, until) => fileContents(path, { clock, below: ANY }, until),
      files: (paths, until) => fileTexts(paths, { clock, below: ANY }, until),
    },
  });
  await using opened = adapter.open(adapter.config.parse(adapter.sds?.(sds)), host);
  if (isIssuer(opened)) throw new TypeError('a socket is a source');
  for await (const { chain, key, roots } of opened.watch(signal)) {
    return { from: `socket ${sds.socket}`, chain, key, bundle: roots };
  }
  throw new Error('the socket closed without an identity');
}

const readAll = async (files: readonly string[], io: Io): Promise<string> =>
  (await Promise.all(files.map((file) => readInput(file, io)))).join('\n');

/** Errors name the files. */
function within<T>(from: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof PkiError) throw new PkiError(error.code, `${from}: ${error.message}`);
    throw error;
  }
}

const keyIn = (text: string): PrivateKey | undefined =>
  text.includes('PRIVATE KEY-----') ? PrivateKey.fromPem(text) : undefined;

/** In one file, self-signed certificates are roots and the rest is a chain; a single root is treated as a chain. */
function split(all: readonly Certificate[]): { chain: readonly Certificate[]; roots: readonly Certificate[] } {
  const chain = all.filter(({ selfSigned }) => !selfSigned);
  return chain.length === 0 ? { chain: all, roots: all } : { chain, roots: all.filter(({ selfSigned }) => selfSigned) };
}

export interface InspectReport {
  readonly from: string;
  readonly ok: boolean;
  readonly certificates: readonly CertificateFacts[];
  readonly roots: readonly CertificateFacts[];
  /** Checks of meshcert. */
  readonly checks: readonly CheckResult[];
  /** OpenSSL's result for the pair in a handshake. */
  readonly preflight: Handshake;
}

interface Handshake {
  readonly title: string;
  readonly outcome: CheckResult['outcome'];
  readonly code?: string;
  /** Why it was refused or not made. */
  readonly message?: string;
}

interface CertificateFacts {
  readonly role: 'leaf' | 'intermediate' | 'root';
  readonly subject: string;
  readonly issuer: string;
  readonly names: readonly string[];
  readonly serial: string;
  readonly notBefore: string;
  readonly notAfter: string;
  readonly fingerprint: string;
  readonly key: string;
}

/** What the user expects of the leaf. */
export interface Expected extends ExpectedIdentity {
  /** Otherwise the form is that of the leaf itself, which proves nothing. */
  readonly isFormGiven: boolean;
}

/** Checks without input: they would pass whatever the certificate is. */
function unasked({ bundle }: Inspected, { id, trustDomain, isFormGiven }: Expected): readonly string[] {
  return [
    ...(bundle.length > 0 ? [] : ['ERR_VERIFY_EMPTY_BUNDLE', 'ERR_VERIFY_CHAIN_INCOMPLETE', 'ERR_VERIFY_LINK_EXPIRED']),
    ...(id === undefined ? ['ERR_VERIFY_ID'] : []),
    ...(trustDomain === undefined ? ['ERR_VERIFY_TRUST_DOMAIN'] : []),
    ...(isFormGiven ? [] : ['ERR_VERIFY_SAN_FORM']),
  ];
}

export interface Judges {
  readonly preflight: Preflight;
  /** Epoch ms. */
  readonly now: number;
  /** OpenSSL uses only the current time in a handshake. */
  readonly isRealTime: boolean;
}

/** The results of both judges of a publication. */
export async function inspectReport(inspected: Inspected, expected: Expected, judges: Judges): Promise<InspectReport> {
  const { chain, key, bundle, from } = inspected;
  const skipped = unasked(inspected, expected);
  const required = { ...expected, keyless: key === undefined };
  const findings = examine({ key, chain }, bundle, required, judges.now);
  const checks = findings.map((finding): CheckResult => {
    if (!skipped.includes(finding.code)) return finding;
    return { code: finding.code, title: finding.title, outcome: 'skipped' };
  });
  const preflight = await handshake(inspected, judges);
  const role = (index: number) => (index === 0 ? 'leaf' : 'intermediate');
  return {
    from,
    ok: [...checks, preflight].every(({ outcome }) => outcome !== 'failed'),
    certificates: chain.map((certificate, index) => factsOf(certificate, role(index))),
    roots: bundle.map((certificate) => factsOf(certificate, 'root')),
    checks,
    preflight,
  };
}

async function handshake({ key, chain, bundle }: Inspected, { preflight, isRealTime }: Judges): Promise<Handshake> {
  const title = 'OpenSSL accepts the pair in a handshake with a server that trusts these roots';
  const skip = (why: string): Handshake => ({ title, outcome: 'skipped', message: why });
  if (!key) return skip('there is no private key');
  if (bundle.length === 0) return skip('there are no roots');
  if (!isRealTime) return skip('it judges by the real time, and not by --at');
  const verdict = await preflight({ key, chain }, bundle);
  return verdict.ok
    ? { title, outcome: 'ok' }
    : { title, outcome: 'failed', code: verdict.code, message: verdict.message };
}

function factsOf(certificate: Certificate, role: CertificateFacts['role']): CertificateFacts {
  const { subject, issuer, serial, fingerprint, names, keyType } = certificate;
  return {
    role,
    subject,
    issuer,
    names: [
      ...names.uris.map((name) => `URI:${name}`),
      ...names.dns.map((name) => `DNS:${name}`),
      ...names.ips.map((name) => `IP:${name}`),
      ...names.emails.map((name) => `email:${name}`),
    ],
    serial,
    notBefore: new Date(certificate.notBefore).toISOString(),
    notAfter: new Date(certificate.notAfter).toISOString(),
    fingerprint,
    key: describeKeyType(keyType),
  };
}

const MARKS = { ok: '✓', failed: '✗', skipped: '-' } as const;
const COLOURS = { ok: 'green', failed: 'red', skipped: 'gray' } as const;

/** For people; one line for each check. */
export function formatReport(report: InspectReport, now: number, paint: ReturnType<typeof painter>): string {
  const lines = [report.from];
  for (const facts of [...report.certificates, ...report.roots]) {
    lines.push('', `${facts.role}  ${facts.fingerprint.slice(0, 16)}  ${facts.key}`);
    lines.push(`  subject  ${facts.subject || '(empty)'}`);
    if (facts.names.length > 0) lines.push(`  names    ${facts.names.join(', ')}`);
    if (facts.role !== 'root') lines.push(`  issuer   ${facts.issuer}`);
    lines.push(`  serial   ${facts.serial}`);
    lines.push(`  valid    ${facts.notBefore} to ${facts.notAfter} (${left(facts.notAfter, now)})`);
  }
  lines.push('');
  const verdicts: string[] = [];
  for (const { outcome, title, code, message } of report.checks) {
    const text = outcome === 'failed' ? `${code}: ${message}` : title;
    verdicts.push(paint(COLOURS[outcome], printable(`${MARKS[outcome]} ${text}`)));
  }
  const { title, outcome, code, message } = report.preflight;
  const text = { ok: title, skipped: `${title}: not tried, since ${message}`, failed: `${code}: ${message}` }[outcome];
  verdicts.push(paint(COLOURS[outcome], printable(`${MARKS[outcome]} ${text}`)));
  const skipped = [...report.checks, report.preflight].some((one) => one.outcome === 'skipped')
    ? ', as far as it could be checked'
    : '';
  verdicts.push(
    '',
    report.ok ? paint('green', `good${skipped}`) : paint('red', 'not valid: this would not be published'),
  );
  return `${[...lines.map(printable), ...verdicts].join('\n')}\n`;
}

function left(notAfter: string, now: number): string {
  const ms = Date.parse(notAfter) - now;
  return ms > 0 ? `${humanDuration(ms)} left` : `expired ${humanDuration(-ms)} ago`;
}
