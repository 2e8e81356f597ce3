import { stat } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { adapters as builtIn } from '../../adapters/index.ts';
import { systemClock } from '../async/clock.ts';
import { specSchema } from '../config/schema/mesh-certificate.ts';
import { gateways } from '../gateways.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import { isMeshName, outsideAdapter, unloadedAdapter } from '../mesh/outside/adapter.ts';
import { systemReason } from './terminal.ts';

/** A module with a top-level await must complete within this time. */
const LOAD_MS = 10_000;
/** An adapter with all its dependencies in one file has a few MiB. */
const LARGEST = 32 * 1024 * 1024;

export interface LoadedAdapters {
  readonly adapters: readonly Adapter[];
  /** Files that could not be loaded. Only a MeshCertificate of a mesh named like the file fails. */
  readonly failures: readonly MeshError[];
}

/** The adapters of this program, and those of these files. Never rejects. */
export async function loadAdapters(files: readonly string[]): Promise<LoadedAdapters> {
  const adapters = [...builtIn];
  const failures: MeshError[] = [];
  const fields = new Set(Object.keys(specSchema(builtIn, gateways).shape));
  const isTaken = (mesh: string) => fields.has(mesh) || adapters.some((one) => one.mesh === mesh);
  for (const file of files) {
    try {
      const adapter = outsideAdapter(await imported(file), file);
      if (isTaken(adapter.mesh))
        throw failed(file, `spec.${adapter.mesh} is taken already; give its mesh another name`);
      adapters.push(adapter);
    } catch (error) {
      const failure = error instanceof MeshError ? error : failed(file, String(error));
      failures.push(failure);
      const [mesh = ''] = basename(file).split('.');
      if (isMeshName(mesh) && !isTaken(mesh)) adapters.push(unloadedAdapter(mesh, failure));
    }
  }
  return { adapters, failures };
}

/** For a command that judges or prints something: throws the first failure. */
export async function adaptersWith(files: readonly string[]): Promise<readonly Adapter[]> {
  const { adapters, failures } = await loadAdapters(files);
  const [failure] = failures;
  if (failure) throw failure;
  return adapters;
}

async function imported(file: string): Promise<unknown> {
  await requireModule(file);
  let cancel = () => {};
  const late = new Promise<never>((_, reject) => {
    const fail = () => reject(failed(file, `it was not loaded after ${LOAD_MS / 1000} s; see what it awaits`));
    cancel = systemClock.after(LOAD_MS, fail);
  });
  try {
    return await Promise.race([import(pathToFileURL(resolve(file)).href), late]);
  } catch (error) {
    if (error instanceof MeshError) throw error;
    const why = error instanceof Error ? `${error.name}: ${error.message}` : 'it threw something that is not an Error';
    throw failed(file, `it cannot be imported: ${why}; correct the file`);
  } finally {
    cancel();
  }
}

/** Node.js reads whatever it imports to its end, and a device has none. */
async function requireModule(file: string): Promise<void> {
  const about = await stat(file).catch((cause) => {
    throw failed(file, `${systemReason(cause)}; check the path`);
  });
  if (!about.isFile() || about.size > LARGEST) {
    throw failed(file, `it is not a file of at most ${LARGEST / 1024 / 1024} MiB; check the path`);
  }
}

const failed = (file: string, why: string): MeshError =>
  new MeshError('ERR_ADAPTER_LOAD', `adapter ${file}: ${why}`, { retry: 'never' });
