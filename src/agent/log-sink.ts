import type { MeshCertificate } from '../config/mesh-certificate.ts';
import type { PublicationStatus } from '../core/status.ts';
import { codeOf } from '../mesh/error.ts';
import type { Log } from '../mesh/log.ts';
import type { Passed } from './report.ts';
import type { Sink } from './reporter.ts';

/** One line for each thing that happened; the same trouble is told once until something else happens. */
export class LogSink implements Sink {
  readonly #log: Log;
  readonly #said = new Map<string, string>();

  constructor(log: Log) {
    this.#log = log;
  }

  status(status: PublicationStatus, before: PublicationStatus | undefined, report: Passed): void {
    const certificate = nameOf(report.certificate);
    for (const { ref, changed } of report.outcome?.written ?? []) {
      this.#log.info({ certificate, object: `${ref.kind} ${ref.namespace}/${ref.name}`, changed }, 'published');
    }
    if (status.fingerprint !== before?.fingerprint && report.inForce && status.fingerprint) {
      this.#said.delete(certificate);
      const { id, notAfter, renewalTime, fingerprint } = status;
      this.#log.info(
        { certificate, id, leaf: fingerprint.slice(0, 16), notAfter, renewalTime },
        'certificate in force',
      );
    }
    if (status.held && status.held.fingerprint !== before?.held?.fingerprint) {
      this.#log.warn({ certificate, ...status.held }, 'a newer certificate is held back');
    }
    for (const condition of status.conditions) {
      const old = before?.conditions.find(({ type }) => type === condition.type);
      if (old?.status === condition.status && old.reason === condition.reason) continue;
      const { type, reason, message } = condition;
      const bad = (type === 'Degraded') === (condition.status === 'True');
      this.#log[bad && old ? 'warn' : 'debug'](
        { certificate, condition: type, status: condition.status, reason },
        message,
      );
    }
  }

  trouble(certificate: MeshCertificate, error: Error): void {
    const name = nameOf(certificate);
    const code = codeOf(error, 'ERR_UNKNOWN');
    const line = `${code} ${error.message}`;
    const repeated = this.#said.get(name) === line;
    this.#said.set(name, line);
    this.#log[repeated ? 'debug' : 'warn']({ certificate: name, code }, error.message);
  }

  forget(certificate: MeshCertificate): void {
    this.#said.delete(nameOf(certificate));
  }
}

const nameOf = ({ metadata }: MeshCertificate): string => `${metadata.namespace}/${metadata.name}`;
