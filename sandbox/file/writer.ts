import { mkdir, mkdtemp, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { LAYOUTS } from '../../adapters/file/cluster.ts';
import type { Clock } from '../../src/async/clock.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';

/**
 * One after the other into the same files, as spiffe-helper writes; each in one step, but not the three, as a
 * sidecar's OUTPUT_CERTS; all at once by a symlink, as a kubelet and CSI drivers; the pair in one file beside the roots.
 */
export type Manner = 'in-place' | 'renamed' | 'swapped' | 'credential-bundle';

export interface FileWriterOptions {
  readonly clock: Clock;
  readonly manner: Manner;
  readonly layout?: keyof typeof LAYOUTS;
  readonly issue: () => Identity;
}

const ROTATE_AT = 0.5;

/** A program that keeps a certificate in a directory of its own. */
export class FileWriter {
  readonly directory: string;
  readonly #options: FileWriterOptions;
  #identity: Identity;
  #cancel: () => void = () => {};
  #writing: Promise<void> = Promise.resolve();
  #version = 0;

  private constructor(directory: string, options: FileWriterOptions) {
    this.directory = directory;
    this.#options = options;
    this.#identity = options.issue();
  }

  static async start(options: FileWriterOptions): Promise<FileWriter> {
    const writer = new FileWriter(await mkdtemp(join(tmpdir(), 'meshcert-files-')), options);
    await writer.write();
    return writer;
  }

  get identity(): Identity {
    return this.#identity;
  }

  /** `spec.file` for what it writes. */
  get config(): object {
    const { manner, layout = 'tls' } = this.#options;
    if (manner !== 'credential-bundle') return { directory: this.directory, layout };
    return {
      credentialBundle: join(this.directory, 'credential-bundle.pem'),
      bundle: join(this.directory, 'trust-bundle.pem'),
    };
  }

  async rotate(): Promise<void> {
    this.#identity = this.#options.issue();
    await this.write();
  }

  /** Writes all that it has, once more. */
  write(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write());
    this.#schedule();
    return this.#writing;
  }

  /** Its files are gone, or written again. */
  async outage(on: boolean): Promise<void> {
    if (!on) return this.write();
    this.#cancel();
    await this.#writing;
    await Promise.all(
      [...this.#contents().keys(), '..data'].map((name) => rm(join(this.directory, name), { force: true })),
    );
  }

  async stop(): Promise<void> {
    this.#cancel();
    await this.#writing;
    await rm(this.directory, { recursive: true, force: true });
  }

  /** In the order in which they are written. */
  #contents(): Map<string, string> {
    const { manner, layout = 'tls' } = this.#options;
    const { key, chain, roots } = this.#identity;
    const [pair, bundle] = [formatCertificates(chain), formatCertificates(roots)];
    if (manner === 'credential-bundle') {
      return new Map([
        ['credential-bundle.pem', key.toPem() + pair],
        ['trust-bundle.pem', bundle],
      ]);
    }
    const names = LAYOUTS[layout];
    return new Map([
      [names.certificate, pair],
      [names.key, key.toPem()],
      [names.bundle, bundle],
    ]);
  }

  async #write(): Promise<void> {
    const { manner } = this.#options;
    const contents = this.#contents();
    if (manner === 'swapped') return this.#swap(contents);
    for (const [name, text] of contents) {
      const path = join(this.directory, name);
      if (manner === 'in-place') await writeFile(path, text, { mode: 0o600 });
      else await replace(path, (next) => writeFile(next, text, { mode: 0o600 }));
    }
  }

  /** A new directory, to which the symlink `..data` points in one step; the files are symlinks through it. */
  async #swap(contents: ReadonlyMap<string, string>): Promise<void> {
    const before = `..${this.#version}`;
    const next = `..${++this.#version}`;
    await mkdir(join(this.directory, next));
    for (const [name, text] of contents) await writeFile(join(this.directory, next, name), text, { mode: 0o600 });
    await replace(join(this.directory, '..data'), (path) => symlink(next, path));
    for (const name of contents.keys()) {
      await symlink(join('..data', name), join(this.directory, name)).catch(exists);
    }
    await rm(join(this.directory, before), { recursive: true, force: true });
  }

  #schedule(): void {
    this.#cancel();
    const { clock } = this.#options;
    const { notBefore, notAfter } = leafOf(this.#identity);
    const due = notBefore + (notAfter - notBefore) * ROTATE_AT;
    this.#cancel = clock.after(Math.max(0, due - clock.now()), () => void this.rotate());
  }
}

async function replace(path: string, make: (next: string) => Promise<void>): Promise<void> {
  const next = join(dirname(path), `.next-${process.pid}`);
  await unlink(next).catch(() => {});
  await make(next);
  await rename(next, path);
}

function exists(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error;
}
