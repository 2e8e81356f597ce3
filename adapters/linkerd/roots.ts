import { MeshError } from '../../src/mesh/error.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import type { LinkerdConfig } from './config.ts';
import type { ObjectReader } from './watched.ts';

export const trustRoots: ObjectReader<readonly Certificate[]> = {
  ref: (config) => ({ name: config.trustRoots.configMap, namespace: config.controlPlaneNamespace }),
  decidedBy: (config) => [config.trustRoots.key],
  read: readRoots,
};

/** The trust roots, at least one; text, keys and duplicates between them are skipped. */
function readRoots(config: LinkerdConfig, data: Readonly<Record<string, string>> | undefined): readonly Certificate[] {
  const { key, configMap } = config.trustRoots;
  const title = `ConfigMap ${config.controlPlaneNamespace}/${configMap}`;
  if (data === undefined) {
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `${title} with Linkerd's trust roots does not exist; with an external CA, let trust-manager write it or name it in trustRoots.configMap`,
    );
  }
  const pem = data[key];
  if (pem === undefined || pem.trim() === '') {
    const keys = Object.keys(data).join(', ') || 'no key';
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `${title} has no trust root under ${key} but ${keys}; name the key in trustRoots.key`,
    );
  }
  try {
    return parseCertificates(pem);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MeshError('ERR_MESH_CONFIG', `key ${key} of ${title} cannot be read as certificates: ${why}; repair it`, {
      cause,
    });
  }
}
