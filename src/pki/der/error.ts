/** An error with a stable code. The base of each kind of error that docs/errors.md explains. */
export class CodedError<Code extends string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, { cause }: { readonly cause?: unknown } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** Stable codes of everything that src/pki refuses. */
export const PKI_ERROR_CODES = [
  'ERR_PEM_TOO_LARGE',
  'ERR_PEM_TOO_MANY',
  'ERR_PEM_SYNTAX',
  'ERR_PEM_EMPTY',
  'ERR_DER_SYNTAX',
  'ERR_CERT_SYNTAX',
  'ERR_KEY_SYNTAX',
  'ERR_KEY_TYPE',
  'ERR_KEY_COUNT',
  'ERR_CSR_NAME',
] as const;

export type PkiErrorCode = (typeof PKI_ERROR_CODES)[number];

/** Invalid input. The message never quotes the input: it may hold a key. */
export class PkiError extends CodedError<PkiErrorCode> {
  override readonly name = 'PkiError';
}
