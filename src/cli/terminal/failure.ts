import { getSystemErrorMap } from 'node:util';

/** Codes of Node.js errors; our error classes have names of their own. */
const FOREIGN_CODE = /^ERR_/;
const BUILT_IN: readonly string[] = ['Error', 'TypeError', 'RangeError', 'SyntaxError', 'ReferenceError', 'AbortError'];

/**
 * The message for a user about an error that ended a command: with its code if it is ours, and without text that only a
 * developer of Node.js would understand.
 */
export function describeFailure(error: unknown): string {
  if (!(error instanceof Error)) return unexpected(String(error));
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall !== undefined) return systemFailure(error);
  const isBuiltIn = BUILT_IN.includes(error.name);
  if (!isBuiltIn) return typeof code === 'string' ? `${code}: ${error.message}` : error.message;
  if (error.name === 'Error' && !(typeof code === 'string' && FOREIGN_CODE.test(code))) return error.message;
  return unexpected(error.message);
}

/** `no such file or directory`, for an error of the operating system. */
export function systemReason(error: unknown): string {
  const { errno, code, message } = error as NodeJS.ErrnoException;
  // Node.js throws this for a path with a NUL in it.
  if (error instanceof TypeError) return 'this is not a path';
  const [, reason] = (errno === undefined ? undefined : getSystemErrorMap().get(errno)) ?? [];
  return reason ?? code ?? message;
}

function systemFailure(error: NodeJS.ErrnoException & { address?: string; port?: number; hostname?: string }): string {
  const { syscall = '', path, address, port, hostname } = error;
  const place = path ?? hostname ?? (address === undefined ? '' : `${address}${port === undefined ? '' : `:${port}`}`);
  return `${syscall}${place && ` ${place}`}: ${systemReason(error)}`;
}

const unexpected = (message: string): string =>
  `unexpected error: ${message}. This is a defect of meshcert; please report it with the command that you ran`;
