import { MeshError } from '../../src/mesh/error.ts';
import { type Certificate, formatCertificates, parseCertificates } from '../../src/pki/certificate.ts';

export interface CaAnswer {
  /** Leaf first; self-signed ones are left out. */
  readonly chain: readonly Certificate[];
  readonly roots: readonly Certificate[];
}

/**
 * `cert_chain` has the leaf, the intermediates one by one, and last the root, or all roots in that one element. With a
 * plug-in CA the root may be among the intermediates too. `known` are the roots that are most likely in the answer.
 */
export function readAnswer(from: string, elements: readonly string[], known: readonly Certificate[]): CaAnswer {
  if (elements.length < 2) {
    throw new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      `${from} sent ${elements.length} certificates; expected a leaf and a root. See its logs`,
    );
  }
  try {
    const lower = parseCertificates(elements.slice(0, -1).join('\n'));
    const last = elements.at(-1) ?? '';
    const roots = last === formatCertificates(known) ? known : parseCertificates(last);
    return { chain: lower.filter(({ selfSigned }) => !selfSigned), roots };
  } catch (cause) {
    throw new MeshError('ERR_MESH_BAD_RESPONSE', `${from} sent certificates that cannot be read; see its logs`, {
      cause,
    });
  }
}
