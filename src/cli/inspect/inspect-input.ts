import { fileContents, fileTexts } from '../../agent/informers/files.ts';
import { systemClock } from '../../async/clock.ts';
import type { KubeObject } from '../../core/object.ts';
import { decodeData } from '../../gateway/secret-data.ts';
import type { Kube } from '../../kube/api.ts';
import type { Adapter, Host, SdsSocket } from '../../mesh/adapter.ts';
import { isIssuer } from '../../mesh/adapter.ts';
import { MeshError } from '../../mesh/error.ts';
import { silentLog } from '../../mesh/log.ts';
import { type Certificate, parseCertificates } from '../../pki/certificate.ts';
import { PkiError } from '../../pki/der/error.ts';
import { PrivateKey } from '../../pki/key.ts';
import type { Io } from '../declare/command.ts';
import { readInput } from '../terminal/input.ts';

/** The input: a chain, perhaps with its key and with the roots that it should verify under. */
export interface Inspected {
  readonly from: string;
  readonly chain: readonly Certificate[];
  readonly key: PrivateKey | undefined;
  /** Empty when none were given. */
  readonly bundle: readonly Certificate[];
}

/** Certificates, and a key if there is one, from PEM files that are read as one. */
export async function fromFiles(files: readonly string[], caFiles: readonly string[], io: Io): Promise<Inspected> {
  const [text, caText] = await Promise.all([readAll(files, io), readAll(caFiles, io)]);
  const from = files.join(', ');
  const { chain, roots } = split(within(from, () => parseCertificates(text)));
  const bundle = caFiles.length === 0 ? roots : within(caFiles.join(', '), () => parseCertificates(caText));
  return { from, chain, key: within(from, () => keyIn(text)), bundle };
}

/** A Secret as we publish it, with the roots of the other Secret, or otherwise of its own `ca.crt`. */
export async function fromSecret(
  kube: Kube,
  place: { readonly namespace: string; readonly name: string; readonly caName: string | undefined },
  signal: AbortSignal,
): Promise<Inspected> {
  const { namespace, name, caName } = place;
  const secret = await secretData(kube, namespace, name, signal);
  const ca = caName === undefined ? undefined : await secretData(kube, namespace, caName, signal);
  const roots = ca ? (ca['tls.crt'] ?? ca['ca.crt']) : secret['ca.crt'];
  const pem = secret['tls.crt'] ?? secret['ca.crt'];
  if (pem === undefined) throw new Error(`Secret ${namespace}/${name} has neither tls.crt nor ca.crt`);
  const key = secret['tls.key'] === undefined ? undefined : PrivateKey.fromPem(secret['tls.key']);
  const bundle = roots === undefined ? [] : parseCertificates(roots);
  return { from: `Secret ${namespace}/${name}`, chain: parseCertificates(pem), key, bundle };
}

async function secretData(kube: Kube, namespace: string, name: string, signal: AbortSignal) {
  const secret = await kube.get<KubeObject>({ apiVersion: 'v1', kind: 'Secret', namespace, name }, signal);
  if (!secret) throw new Error(`Secret ${namespace}/${name} does not exist; see -n for the namespace`);
  return decodeData(secret);
}

/** The first identity that a live SDS socket pushes. */
export async function fromSocket(adapter: Adapter, sds: SdsSocket, signal: AbortSignal): Promise<Inspected> {
  const opened = adapter.open(adapter.config.parse(adapter.sds?.(sds)), socketHost());
  try {
    if (isIssuer(opened)) throw new TypeError('a socket is a source');
    for await (const { chain, key, roots } of opened.watch(signal)) {
      return { from: `socket ${sds.socket}`, chain, key, bundle: roots };
    }
    throw new Error('the socket closed without an identity');
  } finally {
    await opened[Symbol.asyncDispose]();
  }
}

/** A socket needs neither tokens nor objects of a cluster. */
function socketHost(): Host {
  const absent = () => {
    throw new MeshError('ERR_MESH_UNSUPPORTED', 'inspect sends no requests to a cluster');
  };
  return {
    clock: systemClock,
    log: silentLog,
    random: Math.random,
    namespace: 'default',
    token: absent,
    configMap: absent,
    clusterTrustBundle: absent,
    file: (path, signal) => fileContents(path, { clock: systemClock }, signal),
    files: (paths, signal) => fileTexts(paths, { clock: systemClock }, signal),
    report: () => {},
  };
}

const readAll = async (files: readonly string[], io: Io): Promise<string> =>
  (await Promise.all(files.map((file) => readInput(file, io)))).join('\n');

/** Errors name the files. */
function within<T>(from: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof PkiError) throw new PkiError(error.code, `${from}: ${error.message}`);
    throw error;
  }
}

const keyIn = (text: string): PrivateKey | undefined =>
  text.includes('PRIVATE KEY-----') ? PrivateKey.fromPem(text) : undefined;

/** In one file, self-signed certificates are roots and the rest is a chain; a single root is treated as a chain. */
function split(all: readonly Certificate[]): { chain: readonly Certificate[]; roots: readonly Certificate[] } {
  const chain = all.filter(({ selfSigned }) => !selfSigned);
  return chain.length === 0 ? { chain: all, roots: all } : { chain, roots: all.filter(({ selfSigned }) => selfSigned) };
}
