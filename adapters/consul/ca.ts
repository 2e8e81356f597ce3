import { rootCertificates } from 'node:tls';
import { linkedTo } from '../../src/async/linked-signal.ts';
import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { ConsulTls } from './config.ts';

/** The PEM that Consul's API certificates are verified against, as it is now. */
export async function apiCa(tls: ConsulTls | undefined, host: Host, signal: AbortSignal): Promise<string> {
  const ca = tls?.ca;
  if (!ca) return rootCertificates.join('\n');
  if (ca.inline !== undefined) return ca.inline;
  if (ca.file !== undefined) {
    const text = await firstOf((stop) => host.file(ca.file as string, stop), signal);
    if (text) return text;
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `the CA file ${ca.file} of Consul's API is missing, empty or not readable; mount it there`,
    );
  }
  const ref = { name: ca.configMap?.name ?? '', namespace: ca.configMap?.namespace ?? host.namespace };
  const key = ca.configMap?.key ?? '';
  const data = await firstOf((stop) => host.configMap(ref, stop), signal);
  const text = data?.[key];
  if (text) return text;
  throw new MeshError(
    'ERR_MESH_CONFIG',
    `ConfigMap ${ref.namespace}/${ref.name} ${data ? `has no key ${key}` : 'does not exist'}; it should hold the CA of Consul's API`,
  );
}

/** The first value of a stream that would continue. */
export async function firstOf<T>(open: (signal: AbortSignal) => AsyncIterable<T>, signal: AbortSignal): Promise<T> {
  using enough = linkedTo(signal);
  try {
    for await (const value of open(enough.signal)) return value;
  } finally {
    enough.abort(new Error('the first value was enough'));
  }
  signal.throwIfAborted();
  throw new MeshError('ERR_MESH_BAD_RESPONSE', 'a stream ended before its first value');
}
