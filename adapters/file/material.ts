import type { Expectation } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { provingRoots, readPair, unprovable } from '../../src/mesh/input/pair.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { parseSpiffeId } from '../../src/pki/spiffe.ts';
import type { FilePaths } from './cluster/layouts.ts';
import type { FileConfig } from './config.ts';

/** What stood in the files at one moment; `undefined` for one that does not exist. */
export type FileContents = { readonly [name in keyof FilePaths]: string | undefined };

export function expectation({ id, trustDomain }: FileConfig): Expectation {
  const spiffe = id === undefined ? undefined : parseSpiffeId(id);
  const domain = trustDomain ?? spiffe?.trustDomain;
  return {
    form: id !== undefined && !spiffe ? 'dns' : 'spiffe',
    ...(id === undefined ? {} : { id }),
    ...(domain === undefined ? {} : { trustDomain: domain }),
  };
}

export function missing(paths: FilePaths, contents: FileContents): MeshError | undefined {
  const names = ['certificate', 'key', 'bundle'] as const;
  const absent = new Set(names.filter((name) => contents[name] === undefined).map((name) => paths[name]));
  if (absent.size === 0) return undefined;
  const what = absent.size === 1 ? `the file ${[...absent]} does` : `the files ${[...absent].join(', ')} do`;
  return new MeshError(
    'ERR_MESH_UNAVAILABLE',
    `${what} not exist or cannot be read; is the volume mounted here, and does the program run that writes into it?`,
  );
}

/** Throws a MeshError when the contents do not belong together, or are of no use. `before` is what was read last. */
export function readIdentity(
  paths: FilePaths,
  contents: FileContents,
  expectation: Expectation,
  now: number,
  before: Identity | undefined,
): Identity {
  const known = before ? [...before.chain, ...before.roots] : [];
  const certificates = certificatesOf(paths.certificate, contents.certificate, known);
  const key = keyOf(paths.key, contents.key);
  const from = `the files ${[...new Set([paths.certificate, paths.key])].join(' and ')}`;
  const pair = readPair(from, key, certificates, expectation, now);
  const named = certificatesOf(paths.bundle, contents.bundle, known);
  const roots = provingRoots(pair, named, before?.roots ?? [], now);
  if (!roots) throw unprovable(`the files ${paths.certificate} and ${paths.bundle}`, pair);
  return { ...pair, roots };
}

function certificatesOf(path: string, text: string | undefined, known: readonly Certificate[]): Certificate[] {
  try {
    return parseCertificates(text ?? '', { known });
  } catch (cause) {
    throw bad(`the file ${path} has no certificates that can be read`, cause);
  }
}

function keyOf(path: string, text: string | undefined): PrivateKey {
  try {
    return PrivateKey.fromPem(text ?? '');
  } catch (cause) {
    throw bad(`the file ${path} has no private key that can be read`, cause);
  }
}

function bad(what: string, cause: unknown): MeshError {
  return new MeshError('ERR_MESH_BAD_RESPONSE', `${what}; see the logs of the program that writes it`, { cause });
}
