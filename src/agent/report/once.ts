import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, keyOf, refOf } from '../../core/object.ts';
import type { PublicationStatus } from '../../core/status.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import type { Report } from './report.ts';
import type { Sink } from './reporter.ts';

/** For a one-shot run: resolves when every desired MeshCertificate is published and was read back. */
export class OnceSink implements Sink {
  readonly #finish: () => void;
  #expected: ReadonlyMap<string, string> | undefined;
  readonly #ready = new Set<string>();
  readonly #troubles = new Map<string, string>();

  constructor(finish: () => void) {
    this.#finish = finish;
  }

  expect(desired: readonly MeshCertificate[]): void {
    this.#expected = new Map(desired.map((one) => [keyOf(refOf(one)), describe(refOf(one))]));
    this.#check();
  }

  get done(): boolean {
    const expected = this.#expected;
    return expected !== undefined && [...expected.keys()].every((key) => this.#ready.has(key));
  }

  /** One line for each MeshCertificate that is not published. */
  explain(): string {
    const open = [...(this.#expected ?? [])].filter(([key]) => !this.#ready.has(key));
    if (this.#expected === undefined) return '  no MeshCertificates were read';
    return open.map(([key, name]) => `  ${name}: ${this.#troubles.get(key) ?? 'no result yet'}`).join('\n');
  }

  status(_status: PublicationStatus, _before: PublicationStatus | undefined, report: Report): void {
    const key = keyOf(refOf(report.certificate));
    if (report.failure) this.#troubles.set(key, `${report.failure.code}: ${safeMessage(report.failure.message)}`);
    // A dry run stores nothing, so there is nothing to read back: an accepted write is the most it can achieve.
    const { outcome } = report;
    const accepted = outcome && outcome.problems.length + outcome.skipped.length === 0 && report.dryRun;
    if (report.inForce || accepted) this.#ready.add(key);
    this.#check();
  }

  #check(): void {
    if (this.done) this.#finish();
  }
}
