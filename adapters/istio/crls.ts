import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { type Crl, parseCrls } from '../../src/pki/crl.ts';

/** What istiod writes into every namespace when its plug-in CA has CRLs (Istio 1.27 and later). */
export const CRL_CONFIG_MAP = 'istio-ca-crl';
const KEY = 'ca-crl.pem';

/** The CRLs that istiod publishes, now and at each change; none while the ConfigMap does not exist. */
export async function* istioCrls(
  host: Pick<Host, 'configMap' | 'namespace'>,
  signal: AbortSignal,
): AsyncGenerator<readonly Crl[]> {
  const { namespace } = host;
  for await (const data of host.configMap({ name: CRL_CONFIG_MAP, namespace }, signal)) {
    yield read(data?.[KEY] ?? '', `ConfigMap ${namespace}/${CRL_CONFIG_MAP}, key ${KEY},`);
  }
}

function read(pem: string, from: string): readonly Crl[] {
  try {
    return parseCrls(pem);
  } catch (cause) {
    const message = `${from} has no CRLs that can be read; correct ${KEY} in the Secret cacerts of istiod`;
    throw new MeshError('ERR_MESH_BAD_RESPONSE', message, { cause });
  }
}
