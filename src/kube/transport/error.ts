import { CodedError } from '../../pki/der.ts';

/** A failed call to the Kubernetes API; the message names the call and the object. */
export class KubeError extends CodedError<KubeErrorCode> {
  override readonly name = 'KubeError';
  /** HTTP status, 0 when there was no response. */
  readonly status: number;
  /** `metav1.Status.reason`, such as `Conflict` or `AlreadyExists`. */
  readonly reason: string;
  readonly retryAfterMs: number | undefined;

  constructor(
    code: KubeErrorCode,
    message: string,
    detail: { status: number; reason?: string; retryAfterMs?: number | undefined; cause?: unknown },
  ) {
    super(code, message, detail);
    this.status = detail.status;
    this.reason = detail.reason ?? '';
    this.retryAfterMs = detail.retryAfterMs;
  }
}

/** An answer; undefined where the object, or its kind, does not exist. */
export async function absentIsUndefined<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) return undefined;
    throw error;
  }
}

/** There is no kubeconfig, or it names no cluster; the message says which file and what to do. */
export class KubeconfigError extends Error {
  override readonly name = 'KubeconfigError';
}

export const KUBE_ERROR_CODES = [
  'ERR_KUBE_CONFIG',
  'ERR_KUBE_UNREACHABLE',
  'ERR_KUBE_UNAUTHORIZED',
  'ERR_KUBE_FORBIDDEN',
  'ERR_KUBE_TERMINATING',
  'ERR_KUBE_NOT_FOUND',
  'ERR_KUBE_CONFLICT',
  'ERR_KUBE_EXISTS',
  'ERR_KUBE_GONE',
  'ERR_KUBE_INVALID',
  'ERR_KUBE_BUSY',
  'ERR_KUBE_SERVER',
] as const;

export type KubeErrorCode = (typeof KUBE_ERROR_CODES)[number];
