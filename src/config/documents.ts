import { type Document, isCollection, isMap, isScalar, LineCounter, type Node, parseAllDocuments } from 'yaml';
import type { Adapter } from '../mesh/adapter.ts';
import { requireShallowYaml } from '../mesh/input.ts';
import { printable } from '../mesh/secrets.ts';
import type { GatewayFields, MeshCertificate } from './schema/mesh-certificate.ts';
import { conflicts, formatPath, type Issue, validator } from './validate.ts';

export interface DocumentError {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** `spec.trust.hold`; empty when the text itself could not be read. */
  readonly path: string;
  readonly message: string;
}

export interface Documents {
  /** The valid ones, in the order of the file. */
  readonly documents: readonly MeshCertificate[];
  readonly errors: readonly DocumentError[];
}

export interface DocumentOptions {
  /** What an omitted `metadata.namespace` means. */
  readonly namespace?: string;
}

/** A larger file would be a mistake or an attack; a thousand documents of this kind are about 300 KB. */
export const LARGEST_FILE = 4 * 1024 * 1024;

/** Reads MeshCertificates from YAML (or JSON) text. Never throws: problems are in `errors`, by file, line and path. */
export function parseDocuments(
  text: string,
  file: string,
  adapters: readonly Adapter[],
  gateways: readonly GatewayFields[],
  options: DocumentOptions = {},
): Documents {
  if (text.length > LARGEST_FILE) {
    return { documents: [], errors: [{ file, line: 1, path: '', message: `is larger than ${LARGEST_FILE} bytes` }] };
  }
  const lines = new LineCounter();
  let parsed: ReturnType<typeof parseAllDocuments>;
  try {
    requireShallowYaml(text);
    parsed = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false });
  } catch {
    return { documents: [], errors: [{ file, line: 1, path: '', message: 'is nested too deeply' }] };
  }
  const validate = validator(adapters, gateways);
  const errors: DocumentError[] = [];
  const good = new Map<MeshCertificate, Document>();
  const report = (document: Document, issue: Issue) =>
    errors.push({
      file,
      line: lines.linePos(offsetOf(document, issue.path)).line,
      path: formatPath(issue.path),
      message: issue.message,
    });

  for (const document of Array.isArray(parsed) ? parsed : []) {
    for (const { pos, message } of document.errors) {
      errors.push({ file, line: lines.linePos(pos[0]).line, path: '', message });
    }
    if (document.errors.length > 0 || isEmpty(document)) continue;
    const result = readOne(document, validate, options);
    if (result.ok) good.set(result.value, document);
    else for (const issue of result.issues) report(document, issue);
  }
  const refused = new Set<MeshCertificate>();
  for (const conflict of conflicts([...good.keys()], gateways)) {
    const document = good.get(conflict.later);
    if (document) report(document, conflict);
    refused.add(conflict.later);
  }
  errors.sort((a, b) => a.line - b.line);
  return { documents: [...good.keys()].filter((one) => !refused.has(one)), errors };
}

/** `mesh.yaml:7: spec.trust.hold: must be at most 24h` */
export const formatDocumentError = ({ file, line, path, message }: DocumentError): string =>
  printable(`${file}:${line}: ${path === '' ? '' : `${path}: `}${message}`);

function readOne(document: Document, validate: ReturnType<typeof validator>, options: DocumentOptions) {
  let object: unknown;
  try {
    object = document.toJS();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { ok: false as const, issues: [{ path: [], message }] };
  }
  return validate(withNamespace(object, options.namespace));
}

function withNamespace(object: unknown, namespace: string | undefined): unknown {
  if (namespace === undefined || typeof object !== 'object' || object === null) return object;
  const { metadata } = object as { metadata?: unknown };
  if (typeof metadata !== 'object' || metadata === null) return object;
  return { ...object, metadata: { namespace, ...metadata } };
}

const isEmpty = ({ contents }: Document): boolean =>
  contents === null || (isScalar(contents) && (contents.value === null || contents.value === ''));

/** Where the field is; if it is missing, its nearest parent. */
function offsetOf(document: Document, path: Issue['path']): number {
  let node: Node | null = document.contents;
  let offset = node?.range?.[0] ?? 0;
  for (const part of path) {
    if (!isCollection(node)) break;
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && key.value === part);
      if (!pair) break;
      if (isScalar(pair.key)) offset = pair.key.range?.[0] ?? offset;
      node = pair.value as Node | null;
    } else {
      const item = node.items[Number(part)] as Node | undefined;
      if (!item) break;
      offset = item.range?.[0] ?? offset;
      node = item;
    }
  }
  return offset;
}
