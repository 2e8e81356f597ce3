import type { Adapter } from '../../src/mesh/adapter.ts';
import { type FileConfig, fileConfig } from './config.ts';
import { expectation } from './material.ts';
import { FileSource } from './source.ts';

/** Files that another program writes: a sidecar, spiffe-helper, a CSI driver, a kubelet. */
export const file: Adapter<FileConfig> = {
  mesh: 'file',
  title: 'Files',
  config: fileConfig,
  expect: expectation,
  needs: () => [],
  tls: {},
  // The files of a sidecar are for upstreams with a sidecar, which tell mesh traffic by ALPN.
  tlsFor: ({ layout }) => (layout === 'istio' ? { alpnProtocols: 'istio-http/1.1,istio,http/1.1' } : {}),
  open: (config, host) => new FileSource(config, host),
};
