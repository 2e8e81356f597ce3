import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { LineCounter, parseAllDocuments } from 'yaml';
import type { KubeObject } from '../core/object.ts';
import { fields, text } from '../mesh/kube-object.ts';

/** The location of an object. */
export interface Origin {
  readonly file: string;
  /** From 1. */
  readonly line: number;
}

export interface FileObjects {
  readonly objects: readonly KubeObject[];
  readonly origins: ReadonlyMap<KubeObject, Origin>;
  /** What could not be read, such as templates. */
  readonly skipped: readonly (Origin & { readonly message: string })[];
}

const MANIFEST = /\.(ya?ml|json)$/;
/** Larger files are not manifests. */
const LARGEST = 4 * 1024 * 1024;

/** Reads manifests from files and, below directories, from every file that looks like one. */
export async function readFiles(
  paths: readonly string[],
  read: (file: string) => Promise<string> = (file) => readFile(file, 'utf8'),
): Promise<FileObjects> {
  const objects: KubeObject[] = [];
  const origins = new Map<KubeObject, Origin>();
  const skipped: (Origin & { message: string })[] = [];
  for (const path of paths) {
    for (const file of await manifestsIn(path)) {
      const manifest = parseManifest(await read(file), file);
      for (const { object, origin } of manifest.found) {
        objects.push(object);
        origins.set(object, origin);
      }
      skipped.push(...manifest.skipped);
    }
  }
  return { objects, origins, skipped };
}

async function manifestsIn(path: string): Promise<string[]> {
  const about = await stat(path);
  if (!about.isDirectory()) return [path];
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && MANIFEST.test(entry.name));
  return files.map((entry) => join(entry.parentPath, entry.name)).sort();
}

export function parseManifest(
  content: string,
  file: string,
): {
  found: readonly { readonly object: KubeObject; readonly origin: Origin }[];
  skipped: readonly (Origin & { readonly message: string })[];
} {
  if (content.length > LARGEST)
    return { found: [], skipped: [{ file, line: 1, message: `is larger than ${LARGEST} bytes` }] };
  const lines = new LineCounter();
  const found: { object: KubeObject; origin: Origin }[] = [];
  const skipped: (Origin & { message: string })[] = [];
  const documents = parseAllDocuments(content, { lineCounter: lines, prettyErrors: false });
  for (const document of Array.isArray(documents) ? documents : []) {
    const [error] = document.errors;
    if (error) {
      skipped.push({ file, line: lines.linePos(error.pos[0]).line, message: error.message });
      continue;
    }
    const line = lines.linePos(document.contents?.range?.[0] ?? 0).line;
    for (const object of objectsIn(document.toJS())) found.push({ object, origin: { file, line } });
  }
  return { found, skipped };
}

/** An object, or the items of a List. */
function objectsIn(value: unknown): KubeObject[] {
  const object = fields(value);
  if (Array.isArray(object.items) && String(object.kind).endsWith('List')) return object.items.flatMap(objectsIn);
  const metadata = fields(object.metadata);
  if (!text(object.apiVersion) || !text(object.kind) || !text(metadata.name)) return [];
  return [
    { ...object, metadata: { ...metadata, namespace: text(metadata.namespace) ?? 'default' } } as unknown as KubeObject,
  ];
}
