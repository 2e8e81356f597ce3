import { consulConnectorDocument } from '../config/consul-connector.ts';
import { formatPath } from '../config/issue.ts';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { validateObject } from '../config/validate.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { ConfigError } from './config-file.ts';
import type { OnceSink } from './once.ts';

/** Where mistakes are said to be; the message names the field that the variable went into. */
const SOURCE = '--consul-connector';

/** The one MeshCertificate that the environment of Ambassador's Consul connector amounts to. Throws ConfigError. */
export async function* consulConnectorWishes(
  env: Readonly<Record<string, string | undefined>>,
  namespace: string,
  adapters: readonly Adapter[],
  once: OnceSink | undefined,
  signal: AbortSignal,
): AsyncGenerator<readonly MeshCertificate[]> {
  const result = validateObject(consulConnectorDocument(env, namespace), adapters);
  if (!result.ok) {
    const errors = result.issues.map(({ path, message }) => ({
      file: SOURCE,
      line: 1,
      path: formatPath(path),
      message,
    }));
    throw new ConfigError(errors);
  }
  const wished = [result.value];
  once?.expect(wished);
  yield wished;
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}
