import { localCause } from '../../mesh/error.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import { KubeconfigError, KubeError, type KubeErrorCode } from './error.ts';
import { ProxyError } from './proxy.ts';

/** The name of the CustomResourceDefinition of MeshCertificate. */
export const DEFINITION = 'meshcertificates.meshcert.dev';
/** The command that brings the definition of MeshCertificate to this version. Helm may own its fields. */
export const APPLY_DEFINITION = 'meshcert schema --crd | kubectl apply --server-side --force-conflicts -f -';

/** A request as messages name it. */
export interface RequestContext {
  /** The verb that RBAC knows: get, list, watch, create, patch, update, delete. */
  readonly verb: string;
  /** `Secret edge/mesh-ca`. */
  readonly object: string;
  /** API group and resource as a Role's rule would name them; `namespace` is where the Role would be. */
  readonly rule?:
    | {
        readonly group: string;
        readonly resource: string;
        readonly namespace?: string | undefined;
        readonly name?: string | undefined;
      }
    | undefined;
}

interface StatusBody {
  readonly kind?: string;
  readonly message?: string;
  readonly reason?: string;
  readonly details?: {
    readonly retryAfterSeconds?: number;
    readonly causes?: readonly { readonly reason?: string }[];
  };
}

/** The meaning of each status and what to do about it. The only place that decides. */
const TABLE: Readonly<Record<number, { readonly code: KubeErrorCode; readonly next: string }>> = {
  400: { code: 'ERR_KUBE_INVALID', next: 'The request is malformed for this API version; see the cause.' },
  401: {
    code: 'ERR_KUBE_UNAUTHORIZED',
    next: 'The credentials are not accepted: check the token, its audience and expiry, or the kubeconfig user.',
  },
  403: { code: 'ERR_KUBE_FORBIDDEN', next: 'See the cause.' },
  404: {
    code: 'ERR_KUBE_NOT_FOUND',
    next: 'The object, its namespace, or its CustomResourceDefinition does not exist.',
  },
  405: { code: 'ERR_KUBE_INVALID', next: 'The server does not serve this call.' },
  408: { code: 'ERR_KUBE_BUSY', next: 'The API server timed out: check its load.' },
  409: {
    code: 'ERR_KUBE_CONFLICT',
    next: 'Another client changed or owns it.',
  },
  410: { code: 'ERR_KUBE_GONE', next: 'The version is too old; a new list follows.' },
  413: { code: 'ERR_KUBE_INVALID', next: 'The object is too large.' },
  415: {
    code: 'ERR_KUBE_INVALID',
    next: 'The server does not support server-side apply: it is older than Kubernetes 1.22.',
  },
  422: { code: 'ERR_KUBE_INVALID', next: 'Correct the named fields.' },
  429: { code: 'ERR_KUBE_BUSY', next: 'The server is busy; the request is repeated later.' },
};

/** Server-side apply answers 500 for this, although no retry helps. */
const UNDECLARED = 'field not declared in schema';
/** Of a kind that does not exist in a group that does; a whole group that does not exist is a page, and not a Status. */
const UNSERVED = 'the server could not find the requested resource';

export function errorFromStatus(
  called: RequestContext,
  status: number,
  body: unknown,
  retryAfter: string | undefined,
): KubeError {
  const { message, reason = '', details } = statusBody(body);
  if (message?.includes(UNDECLARED)) {
    const next = `The CustomResourceDefinition${nameOf(called)} in the cluster is older than this field: ${isOwn(called) ? `apply that of this version: ${APPLY_DEFINITION}` : 'upgrade it.'}`;
    return new KubeError('ERR_KUBE_INVALID', `${called.verb} ${called.object}: ${causeOf(called, message)} ${next}`, {
      status,
      reason,
    });
  }
  if (status === 404 && called.rule?.group && (message === undefined || message === UNSERVED)) {
    const next = `there is no CustomResourceDefinition${nameOf(called)}: ${isOwn(called) ? APPLY_DEFINITION : 'install it.'}`;
    return new KubeError('ERR_KUBE_NOT_FOUND', `${called.verb} ${called.object}: ${next}`, { status, reason });
  }
  if (details?.causes?.some((cause) => cause.reason === 'NamespaceTerminating')) {
    const where = called.rule?.namespace ?? 'of the object';
    return new KubeError(
      'ERR_KUBE_TERMINATING',
      `${called.verb} ${called.object}: the namespace ${where} is being deleted, and nothing can be created in it. The agent tries again; if the namespace is not deleted, its conditions say why.`,
      { status, reason },
    );
  }
  const row = TABLE[status] ?? {
    code: status >= 500 ? 'ERR_KUBE_SERVER' : 'ERR_KUBE_INVALID',
    next: 'Check the API server and its webhooks.',
  };
  const code = reason === 'AlreadyExists' ? 'ERR_KUBE_EXISTS' : row.code;
  const next = status === 403 ? forbidden(called, message) : row.next;
  const cause = causeOf(called, message);
  return new KubeError(
    code,
    `${called.verb} ${called.object}: ${status}${reason && ` ${reason}`}${cause && `: ${cause}`} ${next}`,
    {
      status,
      reason,
      retryAfterMs: retryAfterMs(retryAfter, details?.retryAfterSeconds),
    },
  );
}

/** The name of the CustomResourceDefinition of a kind. */
const nameOf = ({ rule }: RequestContext): string => (rule ? ` ${rule.resource.split('/')[0]}.${rule.group}` : '');

const isOwn = (called: RequestContext): boolean => nameOf(called) === ` ${DEFINITION}`;

/** No usable answer: refused, reset, timed out, TLS, or a body that is not JSON. */
export function errorFromSocket(called: RequestContext, cause: unknown): KubeError {
  const said =
    cause instanceof ProxyError
      ? `${cause.message}. ${cause.next}`
      : `no answer from the API server (${whyOf(cause)}). Check the address, the network policy and the CA of the kubeconfig.`;
  return new KubeError('ERR_KUBE_UNREACHABLE', `${called.verb} ${called.object}: ${said}`, {
    status: 0,
    cause,
  });
}

/** The answer is not read to its end. */
export function errorFromSize({ verb, object }: RequestContext, most: number): KubeError {
  const message = `${verb} ${object}: the answer is larger than ${most / 1024 / 1024} MiB, or in too many pieces, and was not read. Look for what made the objects so large, or for who answers in place of the API server.`;
  return new KubeError('ERR_KUBE_SERVER', message, { status: 0 });
}

/** Our own errors have no code; those of Node may quote data from the other side. */
function whyOf(cause: unknown): string {
  if (cause instanceof SyntaxError) return 'the answer is not JSON, or was cut';
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === undefined) return message ?? 'the connection failed';
  return localCause(`${code} ${message}`) ?? code;
}

/** The request never got its turn: the API server asked to be called later, or is slow with the requests in flight. */
export function errorFromWait(called: RequestContext, waitedMs: number): KubeError {
  const message = `${called.verb} ${called.object}: not sent, because the API server was too busy for ${waitedMs / 1000} s. Check API Priority and Fairness for the agent's ServiceAccount.`;
  return new KubeError('ERR_KUBE_BUSY', message, { status: 0 });
}

/** There is no usable kubeconfig, or its token file or its plugin returned no credentials. */
export function errorFromCredentials(called: RequestContext, cause: unknown): KubeError {
  if (cause instanceof KubeconfigError) return new KubeError('ERR_KUBE_CONFIG', cause.message, { status: 0, cause });
  const said = safeMessage(cause instanceof Error ? cause.message : String(cause));
  const message = `${called.verb} ${called.object}: no credentials: ${said}. Correct the kubeconfig or the projected token.`;
  return new KubeError('ERR_KUBE_UNAUTHORIZED', message, { status: 0, cause });
}

/** Quotas, Pod Security and admission webhooks answer 403 as well, and no Role changes that. */
function forbidden(called: RequestContext, message = ''): string {
  if (message === '' || /\bcannot \w+ (resource|path)\b/.test(message)) return `Grant it in a Role: ${ruleFor(called)}`;
  return 'An admission rule or a quota refuses it, and not a missing Role: change what the message names.';
}

/** The rule that a Role lacks, ready to paste. */
function ruleFor({ verb, rule }: RequestContext): string {
  if (!rule) return `verb ${verb}.`;
  const names = rule.name === undefined ? '' : `, resourceNames: [${rule.name}]`;
  const where = rule.namespace === undefined ? 'a ClusterRole' : `namespace ${rule.namespace}`;
  return `{apiGroups: ["${rule.group}"], resources: [${rule.resource}]${names}, verbs: [${verb}]} in ${where}.`;
}

/**
 * The API server's own message, redacted and cut to a maximum length; quotes from a Secret are removed. The operator
 * chose this server, and its message says what admission refused and why; no other peer is quoted.
 */
function causeOf(called: RequestContext, said = ''): string {
  if (said === '') return '';
  const message = safeMessage(said);
  const isSecret = called.rule?.resource.startsWith('secrets');
  const safe = isSecret ? message.replaceAll(LONG_QUOTE, '"…"').replaceAll(LONG_RUN, '…') : message;
  const text = safe.length > LONGEST ? `${safe.slice(0, LONGEST)}…` : safe;
  return /[.!…]$/.test(text) ? text : `${text}.`;
}

/** Field names and DNS names are shorter, values of keys and certificates longer. */
const LONG_QUOTE = /"[^"]{64,}"/g;
const LONG_RUN = /[A-Za-z0-9+/=_-]{64,}/g;
const LONGEST = 500;

/** Empty for a body that is not a metav1.Status. */
function statusBody(body: unknown): StatusBody {
  return (body as StatusBody | null)?.kind === 'Status' ? (body as StatusBody) : {};
}

export function retryAfterMs(header: string | undefined, seconds: number | undefined): number | undefined {
  const said = header === undefined ? seconds : Number(header);
  return said === undefined || Number.isNaN(said) ? undefined : said * 1000;
}
