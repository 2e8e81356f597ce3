import type { Clock } from '../../async/clock.ts';
import { type DocumentError, formatDocumentError, LARGEST_FILE, parseDocuments } from '../../config/documents.ts';
import type { GatewayFields } from '../../config/schema/gateway-fields.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { fileContents } from '../informers/files.ts';

/** A configuration that cannot be used; the message has one line for each mistake. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code = 'ERR_CONFIG';
  readonly errors: readonly DocumentError[];

  constructor(errors: readonly DocumentError[]) {
    super(errors.map(formatDocumentError).join('\n'));
    this.errors = errors;
  }
}

export interface ConfigFileOptions {
  readonly path: string;
  /** What an omitted `metadata.namespace` means. */
  readonly namespace: string;
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly GatewayFields[];
  readonly clock: Clock;
}

export type ConfigFileState =
  | { readonly ok: true; readonly documents: readonly MeshCertificate[] }
  /** The previous configuration stays in effect. */
  | {
      readonly ok: false;
      readonly error: ConfigError /** The file does not exist, or cannot be read. */;
      readonly isUnreadable?: boolean;
    };

const ABSENT = 'does not exist';

/** The MeshCertificates of a file now and at each change of it. A file with any mistake changes nothing. */
export async function* configFile(options: ConfigFileOptions, signal: AbortSignal): AsyncGenerator<ConfigFileState> {
  const { path, namespace, adapters, gateways, clock } = options;
  let why = ABSENT;
  const failed = (_: string, { message }: Error) => {
    why = message;
  };
  for await (const text of fileContents(path, { clock, failed, most: LARGEST_FILE }, signal)) {
    if (text === undefined) {
      const message = `${why}; check the path and the mounted ConfigMap`;
      why = ABSENT;
      yield { ok: false, isUnreadable: true, error: new ConfigError([{ file: path, line: 1, path: '', message }]) };
      continue;
    }
    const { documents, errors } = parseDocuments(text, path, adapters, gateways, { namespace });
    if (errors.length > 0) {
      yield { ok: false, error: new ConfigError(errors) };
    } else if (documents.length === 0) {
      const message = 'holds no MeshCertificate; add at least one document';
      yield { ok: false, error: new ConfigError([{ file: path, line: 1, path: '', message }]) };
    } else {
      yield { ok: true, documents };
    }
  }
}
