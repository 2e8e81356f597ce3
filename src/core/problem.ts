import { codeOf } from '../mesh/error.ts';
import { safeMessage } from '../mesh/secrets.ts';

/** What went wrong, as status, Events and the log show it. */
export interface Problem {
  readonly code: string;
  readonly message: string;
  /** When it last occurred, epoch ms; absent: now. */
  readonly at?: number | undefined;
}

/** `ERR_MESH_TLS` → `MeshTls`: the condition reason of a coded failure. */
export function reasonOf(code: string): string {
  return code
    .replace(/^ERR_/, '')
    .toLowerCase()
    .replace(/(^|_)([a-z0-9])/g, (_all, _bar, letter: string) => letter.toUpperCase());
}

/** The stable code of an error, or a default code if it has none; the message is safe to show. */
export function codedProblem(error: Error): Problem {
  return { code: codeOf(error, 'ERR_INTERNAL'), message: safeMessage(error.message) };
}
