import type { JsonFields } from './object.ts';

export interface Cause {
  readonly reason: string;
  readonly message: string;
  readonly field?: string;
}

/** An answer other than success, as `metav1.Status`. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly reason: string;
  readonly details: JsonFields;
  readonly retryAfterSeconds: number | undefined;

  constructor(status: number, reason: string, message: string, details: JsonFields = {}, retryAfterSeconds?: number) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.details = details;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  body(): JsonFields {
    return {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      message: this.message,
      reason: this.reason,
      details: { ...this.details, ...(this.retryAfterSeconds ? { retryAfterSeconds: this.retryAfterSeconds } : {}) },
      code: this.status,
    };
  }
}

export interface Named {
  readonly group: string;
  readonly plural: string;
  readonly kind: string;
}

const qualified = (kind: Named): string => (kind.group === '' ? kind.plural : `${kind.plural}.${kind.group}`);
const details = (kind: Named, name: string): JsonFields => ({
  name,
  ...(kind.group === '' ? {} : { group: kind.group }),
  kind: kind.plural,
});

export const notFound = (kind: Named, name: string): ApiError =>
  new ApiError(404, 'NotFound', `${qualified(kind)} "${name}" not found`, details(kind, name));

export const noSuchPath = (): ApiError =>
  new ApiError(404, 'NotFound', 'the server could not find the requested resource');

export const alreadyExists = (kind: Named, name: string): ApiError =>
  new ApiError(409, 'AlreadyExists', `${qualified(kind)} "${name}" already exists`, details(kind, name));

export const conflict = (kind: Named, name: string, why: string): ApiError =>
  new ApiError(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${qualified(kind)} "${name}": ${why}`,
    details(kind, name),
  );

export const MODIFIED = 'the object has been modified; please apply your changes to the latest version and try again';

export const badRequest = (message: string): ApiError => new ApiError(400, 'BadRequest', message);

export function invalid(kind: Named, name: string, causes: readonly Cause[]): ApiError {
  const list = causes.map((cause) => `${cause.field ?? ''}: ${cause.message}`);
  const said = list.length === 1 ? list[0] : `[${list.join(', ')}]`;
  const title = kind.group === '' ? kind.kind : `${kind.kind}.${kind.group}`;
  return new ApiError(422, 'Invalid', `${title} "${name}" is invalid: ${said}`, {
    name,
    ...(kind.group === '' ? {} : { group: kind.group }),
    kind: kind.kind,
    causes,
  });
}

export const expired = (message: string): ApiError => new ApiError(410, 'Expired', message);

export const unauthorized = (): ApiError => new ApiError(401, 'Unauthorized', 'Unauthorized');

export const methodNotAllowed = (): ApiError =>
  new ApiError(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource');
