import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { reasonOf } from '../../core/problem.ts';
import type { PublicationStatus } from '../../core/status.ts';
import type { EventSubject, Recorder } from '../../kube/events.ts';
import { codeOf } from '../../mesh/error.ts';
import type { Passed } from './report.ts';
import type { Sink } from './reporter.ts';

/** The reasons of our Events, in addition to those made from error codes; docs/runbook.md has an entry for each. */
export const EVENT_REASONS = [
  'Published',
  'Rotated',
  'TrustChanged',
  'RootWithdrawn',
  'LeafHeld',
  'DriftRepaired',
  'UpstreamVerified',
  'UpstreamNotVerified',
] as const;

/** Kubernetes Events about MeshCertificates: what `kubectl describe` shows. */
export class EventSink implements Sink {
  readonly #recorder: Recorder;

  constructor(recorder: Recorder) {
    this.#recorder = recorder;
  }

  status(status: PublicationStatus, before: PublicationStatus | undefined, report: Passed): void {
    if (!report.leading) return;
    const say = (type: 'Normal' | 'Warning', reason: (typeof EVENT_REASONS)[number], message: string) =>
      this.#recorder.event(subject(report.certificate), type, reason, message);
    const objects = (report.outcome?.written ?? []).map(({ ref }) => `${ref.kind} ${ref.name}`).join(', ');
    if (report.repair && objects !== '')
      say('Warning', 'DriftRepaired', `Restored after a change by another client: ${objects}.`);
    if (report.inForce && before?.fingerprint === undefined && status.fingerprint !== undefined) {
      say('Normal', 'Published', `Certificate of ${status.id} until ${status.notAfter}.`);
    } else if (report.rotation?.kind === 'leaf') {
      say('Normal', 'Rotated', `Certificate of ${status.id} until ${status.notAfter}.`);
    } else if (report.rotation?.kind === 'bundle') {
      say('Normal', 'TrustChanged', `The trust bundle has ${status.roots.length} root(s).`);
    }
    for (const { subject, fingerprint } of withdrawnSince(before, status, report.certificate)) {
      const what = `The root "${subject}" (${fingerprint.slice(0, 16)}) is in spec.trust.withdrawn and no longer trusted. A certificate that ends at it is not published.`;
      say('Warning', 'RootWithdrawn', what);
    }
    const [old, now] = [before, status].map((one) => one?.conditions.find(({ type }) => type === 'UpstreamVerified'));
    if (now && now.status !== old?.status) {
      if (now.status === 'True') say('Normal', 'UpstreamVerified', now.message);
      else say('Warning', 'UpstreamNotVerified', now.message);
    }
    if (status.held && status.held.fingerprint !== before?.held?.fingerprint) {
      say('Warning', 'LeafHeld', `A newer certificate is held back until ${status.held.until}: ${status.held.reason}.`);
    }
  }

  trouble(certificate: MeshCertificate, error: Error): void {
    const reason = reasonOf(codeOf(error, 'ERR_UNKNOWN'));
    this.#recorder.event(subject(certificate), 'Warning', reason, error.message);
  }
}

/** The roots that this decision takes out of the bundle because the spec withdraws them. */
export function withdrawnSince(
  before: PublicationStatus | undefined,
  { roots }: PublicationStatus,
  { spec }: MeshCertificate,
): PublicationStatus['roots'] {
  const isLeft = (fingerprint: string) => roots.some((root) => root.fingerprint === fingerprint);
  return (before?.roots ?? []).filter(
    ({ fingerprint }) => spec.trust.withdrawn.includes(fingerprint) && !isLeft(fingerprint),
  );
}

function subject({ apiVersion, kind, metadata }: MeshCertificate): EventSubject {
  const { name, namespace, uid } = metadata;
  return { apiVersion, kind, name, namespace, uid };
}
