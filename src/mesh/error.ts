import { CodedError } from '../pki/der/error.ts';

/** What to do after a failure: back off and retry, wait for a change of configuration, or wait this long. */
export type Retry = 'soon' | 'never' | { readonly afterMs: number };

/**
 * The stable codes that a mesh adapter may raise. Each has an entry in docs/errors.md. CONFIG, DENIED and TOKEN are for
 * the operator to fix; the rest are temporary or faults of the mesh.
 */
export const MESH_ERROR_CODES = [
  'ERR_MESH_UNREACHABLE',
  'ERR_MESH_TLS',
  'ERR_MESH_TIMEOUT',
  'ERR_MESH_DENIED',
  'ERR_MESH_TOKEN',
  'ERR_MESH_RATE_LIMITED',
  'ERR_MESH_UNAVAILABLE',
  'ERR_MESH_BAD_RESPONSE',
  'ERR_MESH_CONFIG',
  'ERR_MESH_UNSUPPORTED',
  'ERR_MESH_SILENT',
  'ERR_NOT_ALLOWED',
  'ERR_NO_CONSENT',
  'ERR_TOKEN_EXPOSED',
  'ERR_ADAPTER_LOAD',
  'ERR_ADAPTER_BROKEN',
] as const;

export type MeshErrorCode = (typeof MESH_ERROR_CODES)[number];

const BRAND = Symbol.for('meshcert.MeshError');

/**
 * A failure that is classified once, where its cause is known. The message names the object, the cause and the next
 * step.
 */
export class MeshError extends CodedError<MeshErrorCode> {
  override readonly name = 'MeshError';
  /** Also of errors that an adapter from outside made with a copy of this class. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && BRAND in value;
  }

  readonly retry: Retry;

  constructor(code: MeshErrorCode, message: string, options: { retry?: Retry; cause?: unknown } = {}) {
    super(code, message, options);
    this.retry = options.retry ?? 'soon';
  }

  get [BRAND](): true {
    return true;
  }
}

/** The stable code that an error of ours carries; the fallback for any other. */
export function codeOf(error: unknown, fallback: string): string {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' ? code : fallback;
}
