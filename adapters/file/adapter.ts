import type { Adapter, Need } from '../../src/mesh/adapter.ts';
import { checks, discover } from './cluster.ts';
import { type FileConfig, fileConfig } from './config.ts';
import { expectation, FileSource } from './source.ts';

/**
 * Files that another program writes: a sidecar, spiffe-helper, a CSI driver, a kubelet.
 *
 * ```yaml
 * spec: {file: {directory: /var/run/secrets/meshcert/certs, layout: tls}}
 * ```
 */
export const file: Adapter<FileConfig> = {
  mesh: 'file',
  title: 'Files',
  config: fileConfig,
  expect: expectation,
  needs: fileNeeds,
  tls: {},
  // The files of a sidecar are for upstreams with a sidecar, which tell mesh traffic by ALPN.
  tlsFor: ({ layout }) => (layout === 'istio' ? { alpnProtocols: 'istio-http/1.1,istio,http/1.1' } : {}),
  discover,
  checks,
  open: (config, host) => new FileSource(config, host),
};

/** A key that is in a file is for whom the operator lets name the file, as it is with an address. */
function fileNeeds({ directory, ...given }: FileConfig): readonly Need[] {
  const need = (path: string, field: string): Need => ({ kind: 'address', address: `file:${path}`, field });
  if (directory !== undefined) return [need(directory.replace(/(?<!\/)\/+$/, ''), 'file.directory')];
  return (['certificate', 'key', 'credentialBundle', 'bundle'] as const).flatMap((name) => {
    const path = given[name];
    return path === undefined ? [] : [need(path, `file.${name}`)];
  });
}
