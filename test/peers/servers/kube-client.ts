import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { peer } from '../build.ts';
import { output } from './process.ts';

export interface Reply {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: objects of any Kubernetes kind
  readonly body: any;
}

/** One finished request, or one begun watch, from the API server's audit log. */
export interface AuditEvent {
  readonly auditID: string;
  readonly stage: 'ResponseStarted' | 'ResponseComplete' | 'Panic';
  readonly verb: string;
  readonly requestURI: string;
  readonly userAgent?: string;
  readonly user: { readonly username: string };
  readonly objectRef?: { readonly resource?: string; readonly namespace?: string; readonly name?: string };
  readonly responseStatus?: { readonly code: number };
}

export interface CallOptions {
  readonly token?: string;
  readonly contentType?: string;
  readonly userAgent?: string;
}

export interface ApplyObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly [field: string]: unknown };
  readonly [field: string]: unknown;
}

export interface KubeClient {
  /** One raw request, as admin unless another token is given; no status is an error. */
  call(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Reply>;
  /** Creates an object, or leaves the existing one; `path` is that of its collection. */
  ensure(path: string, object: unknown): Promise<void>;
  /** Server-side apply by force: the object has these fields afterwards, whoever owned them before. */
  apply(path: string, object: ApplyObject): Promise<void>;
  ensureNamespace(name: string): Promise<void>;
  /** A TokenRequest token. The API server grants no less than 600 seconds. */
  serviceAccountToken(account: {
    namespace: string;
    name: string;
    audience: string;
    seconds?: number;
  }): Promise<string>;
  /** A kubeconfig for another token; returns its path, inside the server's directory. */
  kubeconfigFor(name: string, token: string): Promise<string>;
  /** kubectl as admin; returns its stdout. */
  kubectl(args: readonly string[], options?: { input?: string; kubeconfig?: string }): Promise<string>;
  /** Every request answered so far, once each, in order. An entry may appear a moment after its answer. */
  audit(): Promise<readonly AuditEvent[]>;
}

export interface Cluster {
  readonly url: string;
  readonly caFile: string;
  readonly adminToken: string;
  readonly auditLog: string;
  readonly dir: string;
}

export function kubeClient(cluster: Cluster): KubeClient {
  const call: KubeClient['call'] = async (method, path, body, options = {}) => {
    const ca = await readFile(cluster.caFile);
    const headers: Record<string, string> = {
      authorization: `Bearer ${options.token ?? cluster.adminToken}`,
      accept: 'application/json',
      'user-agent': options.userAgent ?? 'meshcert-test',
    };
    if (body !== undefined) headers['content-type'] = options.contentType ?? 'application/json';
    return new Promise((resolve, reject) => {
      const sent = request(
        new URL(path, cluster.url),
        { method, ca, headers, agent: false, timeout: 30_000 },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (part: string) => {
            text += part;
          });
          answer
            .once('end', () => resolve({ status: answer.statusCode ?? 0, body: parse(text) }))
            .once('error', reject);
        },
      );
      sent.once('timeout', () => sent.destroy(new Error(`${method} ${path}: no answer`))).once('error', reject);
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  };

  const ensure: KubeClient['ensure'] = async (path, object) => {
    const { status, body } = await call('POST', path, object);
    if (status !== 201 && status !== 409) throw new Error(`POST ${path}: ${status} ${body?.message}`);
  };

  const apply: KubeClient['apply'] = async (path, object) => {
    const to = `${path}/${object.metadata.name}?fieldManager=meshcert-test&force=true`;
    const { status, body } = await call('PATCH', to, object, { contentType: 'application/apply-patch+yaml' });
    if (status !== 200 && status !== 201) throw new Error(`PATCH ${to}: ${status} ${body?.message}`);
  };

  const kubeconfigFor: KubeClient['kubeconfigFor'] = async (name, token) => {
    const file = join(cluster.dir, `${name}.kubeconfig`);
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster: { server: cluster.url, 'certificate-authority': cluster.caFile } }],
      users: [{ name, user: { token } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: name } }],
      'current-context': 'test',
    };
    await writeFile(file, JSON.stringify(config, null, 2), { mode: 0o600 });
    return file;
  };

  return {
    call,
    ensure,
    apply,
    kubeconfigFor,
    ensureNamespace: (name) => ensure('/api/v1/namespaces', { metadata: { name } }),
    serviceAccountToken: async ({ namespace, name, audience, seconds = 3600 }) => {
      const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
      await ensure(accounts, { metadata: { name } });
      const spec = { audiences: [audience], expirationSeconds: seconds };
      const { status, body } = await call('POST', `${accounts}/${name}/token`, { spec });
      if (status !== 201) throw new Error(`TokenRequest for ${namespace}/${name}: ${status} ${body?.message}`);
      return body.status.token;
    },
    kubectl: async (args, options = {}) => {
      const kubeconfig = options.kubeconfig ?? join(cluster.dir, 'admin.kubeconfig');
      const { input = '' } = options;
      if (args.includes('--for=condition=Established')) await conditionsSet(call);
      return output(await peer('kubectl'), ['--kubeconfig', kubeconfig, ...args], { cwd: cluster.dir, input });
    },
    audit: async () => {
      const lines = (await readFile(cluster.auditLog, 'utf8')).split('\n').slice(0, -1);
      const events = lines.map((line) => JSON.parse(line) as AuditEvent);
      return [...new Map(events.map((event) => [event.auditID, event])).values()];
    },
  };
}

const DEFINITIONS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';

/** `kubectl wait` fails when a definition has no conditions yet (`null`), as it is for a moment after its creation. */
async function conditionsSet(call: KubeClient['call']): Promise<void> {
  for (;;) {
    const { body } = await call('GET', DEFINITIONS);
    const items = (body?.items ?? []) as readonly { readonly status?: { readonly conditions?: unknown } }[];
    if (items.every(({ status }) => Array.isArray(status?.conditions))) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
