import { MeshError } from '../../../src/mesh/error.ts';
import type { Examiner } from '../../../src/mesh/examiner.ts';
import type { Certificate } from '../../../src/pki/certificate.ts';
import type { Trust } from './trust.ts';

type ConsulExamination<T> = (signal: AbortSignal) => Promise<T>;

const describeTrust = ({ trustDomain, roots }: Trust): string =>
  `trust domain ${trustDomain}, ${roots.length} root${roots.length === 1 ? '' : 's'}`;

const describeLeaf = (leaf: Certificate): string =>
  `issued ${leaf.names.uris[0]} until ${new Date(leaf.notAfter).toISOString()}; it was discarded`;

/** Connection, token, roots, leaf: stops at the first failure, since the following checks would repeat it. */
export async function examineConsul(
  examiner: Examiner,
  looks: {
    /** Without a token. */
    readonly connection: ConsulExamination<string>;
    /** Undefined: none is configured. */
    readonly token: ConsulExamination<string | undefined>;
    readonly roots: ConsulExamination<Trust>;
    readonly leaf: ConsulExamination<Certificate>;
  },
): Promise<void> {
  const connected = await examiner.look('consul-connection', looks.connection, (text) => text);
  const token = await examiner.look(
    'consul-token',
    async (signal) => ({ sent: (await looks.token(signal)) !== undefined }),
    ({ sent }) => (sent ? 'a token is available' : 'no token is configured'),
  );
  if (!connected || !token) return;
  const trust = await examiner.look('consul-roots', looks.roots, describeTrust);
  if (!examiner.issue) examiner.skip('consul-issue', 'no certificate was requested (--no-issue)');
  else if (trust) await examiner.look('consul-issue', looks.leaf, describeLeaf);
}

/** The answer came from Consul, even if it refuses a request without a token. */
export async function answered(request: Promise<unknown>, from: string): Promise<string> {
  try {
    await request;
  } catch (error) {
    const refused = error instanceof MeshError && (error.code === 'ERR_MESH_DENIED' || error.code === 'ERR_MESH_TOKEN');
    if (!refused) throw error;
  }
  return `${from} answers`;
}
