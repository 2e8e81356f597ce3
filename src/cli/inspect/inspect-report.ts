import type { ExpectedIdentity } from '../../core/verify/checks.ts';
import type { Preflight } from '../../core/verify/preflight.ts';
import { type CheckResult, examine } from '../../core/verify/verify.ts';
import { printable } from '../../mesh/secrets.ts';
import type { Certificate } from '../../pki/certificate.ts';
import { describeKeyType } from '../../pki/key-type.ts';
import { humanDuration } from '../terminal/human-duration.ts';
import type { painter } from '../terminal/table.ts';
import type { Inspected } from './inspect-input.ts';

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
