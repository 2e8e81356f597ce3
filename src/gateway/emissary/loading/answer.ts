import type { KubeObject } from '../../../core/object.ts';
import { fields } from '../../../mesh/kube-object.ts';
import type { ExpectedLoad, Loaded } from '../../loading.ts';
import { secretFileName } from '../reading/secret-file.ts';

/** The files that Emissary makes from a publication's Secrets: a changed Secret gets a file with another name. */
export interface ExpectedFiles extends ExpectedLoad {
  readonly namespace: string;
  readonly secretName: string;
  readonly file: string;
  readonly caSecretName: string;
  readonly caFile: string;
}

/** `live`: these files and no others. `certain`: the answer came from Envoy itself. */
export interface LoadedFiles extends Loaded {
  /** Names of the files that it has for the identity. */
  readonly seen: readonly string[];
}

interface SecretFile {
  readonly namespace: string;
  readonly secret: string;
  readonly file: string;
}

/** `…/<namespace>/secrets-decoded/<secret>/<SHA-1>.crt`, anywhere in an answer. */
const PATH = /\/([^/]+)\/secrets-decoded\/([^/]+)\/([0-9A-F]{40})\.(?:root\.)?(?:crt|key|user)$/;

/** The desired files, as the gateway will name them; undefined for a publication without the two Secrets. */
export function expectedFiles(
  { secretName, caSecretName }: { readonly secretName: string; readonly caSecretName: string },
  desired: readonly { readonly object: KubeObject }[],
): ExpectedFiles | undefined {
  const find = (name: string) =>
    desired.find(({ object }) => object.kind === 'Secret' && object.metadata.name === name)?.object;
  const [pair, trust] = [find(secretName), find(caSecretName)];
  if (!pair || !trust) return undefined;
  const name = (secret: KubeObject) => secretFileName(fields(secret.data) as Readonly<Record<string, string>>);
  const [file, caFile] = [name(pair), name(trust)];
  const namespace = pair.metadata.namespace ?? '';
  return { digest: `${file}.${caFile}`, namespace, secretName, file, caSecretName, caFile };
}

/** Reads Emissary's diagnostics (`/ambassador/v0/diag/?json=true`) or Envoy's `/certs`. Throws for anything else. */
export function judgeAnswer(answer: unknown, expected: ExpectedFiles): LoadedFiles {
  const { tlscontexts, certificates } = fields(answer);
  const reported = certificates ?? tlscontexts;
  if (reported === undefined) throw new TypeError('the answer has neither tlscontexts nor certificates');
  const files = filesIn(reported);
  const of = (secret: string) => [
    ...new Set(
      files.filter((one) => one.namespace === expected.namespace && one.secret === secret).map(({ file }) => file),
    ),
  ];
  const seen = of(expected.secretName);
  const trust = of(expected.caSecretName);
  const only = (found: readonly string[], file: string) => found.every((one) => one === file);
  return {
    arrival:
      seen.length === 0 ? 'absent' : only(seen, expected.file) && only(trust, expected.caFile) ? 'live' : 'stale',
    certain: certificates !== undefined,
    seen,
  };
}

function filesIn(value: unknown): SecretFile[] {
  if (typeof value === 'string') {
    const [, namespace, secret, file] = PATH.exec(value) ?? [];
    return namespace && secret && file ? [{ namespace, secret, file }] : [];
  }
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(filesIn) : [];
}

const DIAGNOSTICS = '/ambassador/v0/diag/?json=true';
/** Where Envoy's admin interface listens in Emissary's pods. */
const ADMIN_PORT = '8001';

/** A URL without a path gets the path of the server that answers on its port. */
export function diagnosticsUrl(text: string): URL {
  const url = new URL(text);
  if (url.pathname !== '/' || url.search !== '') return url;
  return new URL(url.port === ADMIN_PORT ? '/certs' : DIAGNOSTICS, url);
}
