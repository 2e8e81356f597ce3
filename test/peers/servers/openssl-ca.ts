import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface OpensslLeaf {
  /** Arguments of `openssl genpkey`; default P-256. */
  readonly key?: readonly string[];
  readonly subject?: string;
  /** Lines of an extension file. */
  readonly extensions: readonly string[];
}

/** A CA whose files and certificates the openssl command makes in one directory: `root.pem`, `root.key`. */
export interface OpensslCa {
  readonly path: (name: string) => string;
  readonly read: (name: string) => Promise<string>;
  readonly openssl: (...args: string[]) => Promise<string>;
  /** Writes `NAME.key`, `NAME.csr` and `NAME.pem`. */
  readonly issue: (name: string, leaf: OpensslLeaf) => Promise<void>;
}

const P256 = ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'];
const UNTIL_TOMORROW = ['-days', '1'];

export const workloadExtensions = (id: string): readonly string[] => [
  `subjectAltName=critical,URI:${id}`,
  'keyUsage=critical,digitalSignature',
  'extendedKeyUsage=clientAuth,serverAuth',
  'basicConstraints=critical,CA:FALSE',
];

export async function opensslCa(dir: string): Promise<OpensslCa> {
  const path = (name: string) => join(dir, name);
  const openssl = async (...args: string[]) => (await run('openssl', args, { cwd: dir })).stdout;
  await openssl('genpkey', ...P256, '-out', 'root.key');
  await openssl('req', '-x509', '-new', '-key', 'root.key', '-subj', '/CN=root', '-days', '2', '-out', 'root.pem');
  return {
    path,
    read: (name) => readFile(path(name), 'utf8'),
    openssl,
    async issue(name, { key = P256, subject = '/', extensions }) {
      const [keyFile, request, leaf, settings] = ['key', 'csr', 'pem', 'ext'].map((end) => `${name}.${end}`) as [
        string,
        string,
        string,
        string,
      ];
      await writeFile(path(settings), `${extensions.join('\n')}\n`);
      await openssl('genpkey', ...key, '-out', keyFile);
      await openssl('req', '-new', '-key', keyFile, '-subj', subject, '-out', request);
      const signer = ['-CA', 'root.pem', '-CAkey', 'root.key', '-CAcreateserial', '-extfile', settings];
      await openssl('x509', '-req', '-in', request, ...signer, ...UNTIL_TOMORROW, '-out', leaf);
    },
  };
}
