import { readFile } from 'node:fs/promises';
import { keyOf, type ObjectRef } from '../core/object.ts';
import type { Kube } from '../kube/api.ts';
import { KubeError } from '../kube/error.ts';
import { reflect } from '../kube/reflector.ts';
import { RESOURCES } from '../kube/resources.ts';
import type { ConfigMapRef, Host, TokenRequest } from '../mesh/adapter.ts';
import type { Clock } from '../mesh/clock.ts';
import { MeshError } from '../mesh/error.ts';
import type { Log } from '../mesh/log.ts';
import { fileContents } from './files.ts';

/** The shortest that the API server grants; tokens are used once and thrown away. */
const TOKEN_SECONDS = 600;

export interface HostOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly namespace: string;
  readonly report: (error: Error) => void;
}

/** What an adapter of one MeshCertificate may touch, over the cluster and the file system. */
export function createHost(options: HostOptions): Host {
  const { kube, clock, random, log, namespace, report } = options;
  return {
    clock,
    random,
    log,
    namespace,
    report,
    token: (request, signal) => bearer(kube, request, signal),
    configMap: (ref, signal) => configMap(options, ref, signal),
    file: (path, signal) => fileContents(path, clock, signal),
  };
}

async function bearer(kube: Kube, request: TokenRequest, signal: AbortSignal): Promise<string> {
  if (request.file !== undefined) return tokenFile(request.file);
  const account = request.serviceAccount;
  if (!account) {
    throw new MeshError('ERR_MESH_CONFIG', 'no token is configured; set serviceAccount or tokenFile', {
      retry: 'never',
    });
  }
  try {
    return (await kube.token(account, request.audience, TOKEN_SECONDS, signal)).token;
  } catch (cause) {
    const name = `${account.namespace}/${account.name}`;
    if (cause instanceof KubeError && cause.status === 403) {
      throw new MeshError(
        'ERR_MESH_TOKEN',
        `the agent may not mint a token for ServiceAccount ${name}; grant it "create" on serviceaccounts/token with resourceNames [${account.name}] in namespace ${account.namespace}`,
        { cause },
      );
    }
    if (cause instanceof KubeError && cause.status === 404) {
      throw new MeshError('ERR_MESH_TOKEN', `ServiceAccount ${name} does not exist; create it or name another`, {
        cause,
      });
    }
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MeshError('ERR_MESH_TOKEN', `no token for ServiceAccount ${name}: ${why}`, { cause });
  }
}

async function tokenFile(path: string): Promise<string> {
  let text: string;
  try {
    text = (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    throw new MeshError(
      'ERR_MESH_TOKEN',
      `the token file ${path} cannot be read (${(cause as NodeJS.ErrnoException).code}); mount a projected service-account token there`,
      { cause },
    );
  }
  if (text === '') throw new MeshError('ERR_MESH_TOKEN', `the token file ${path} is empty; check the projected volume`);
  return text;
}

async function* configMap(
  { kube, clock, random, log, report }: HostOptions,
  ref: ConfigMapRef,
  signal: AbortSignal,
): AsyncGenerator<Readonly<Record<string, string>> | undefined> {
  const inner = new AbortController();
  const reflector = reflect(
    kube,
    RESOURCES.configMaps,
    { namespace: ref.namespace, fieldSelector: `metadata.name=${ref.name}` },
    { clock, random, log, signal: AbortSignal.any([signal, inner.signal]), onError: report },
  );
  const wanted: ObjectRef = { apiVersion: 'v1', kind: 'ConfigMap', ...ref };
  let last: string | undefined;
  try {
    for await (const _ of reflector.changes()) {
      const found = reflector.items().get(keyOf(wanted));
      const data = found?.data as Record<string, string> | undefined;
      const text = JSON.stringify(found ? (data ?? {}) : null);
      if (text === last) continue;
      last = text;
      yield found ? (data ?? {}) : undefined;
    }
  } finally {
    inner.abort(new Error('no longer watched'));
  }
}
