import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadProtosWithOptionsSync } from '@grpc/proto-loader/build/src/util.js';

const protoRoot = fileURLToPath(new URL('../protos', import.meta.url));
export const PROTO_JSON = fileURLToPath(new URL('../src/grpc/gen/protos.json', import.meta.url));

/** The descriptors of every protos/**\/*.proto as one JSON text, so that the bundle reads no files. */
export function renderProtos(): string {
  const files = readdirSync(protoRoot, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.proto'))
    .sort()
    .map((name) => join(protoRoot, name));
  const root = loadProtosWithOptionsSync(files, { keepCase: true, includeDirs: [protoRoot] });
  return `${JSON.stringify(root.toJSON(), null, 1)}\n`;
}

/** Writes the file when it differs; with `check`, only compares. Returns true when it was up to date. */
export function generateProtos(options: { check?: boolean } = {}): boolean {
  const text = renderProtos();
  const same = existsSync(PROTO_JSON) && readFileSync(PROTO_JSON, 'utf8') === text;
  if (!same && !options.check) writeFileSync(PROTO_JSON, text);
  return same;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) generateProtos();
