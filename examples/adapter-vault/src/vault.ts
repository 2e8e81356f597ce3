import { type Adapter, CONTRACT_VERSION } from 'meshcert/adapter';
import { parseConfig, type VaultConfig } from './config.ts';
import { VaultIssuer } from './issuer.ts';

export const contractVersion = CONTRACT_VERSION;

/** Certificates of the PKI secrets engine of Vault or OpenBao, as `spec.vault` of a MeshCertificate. */
export const adapter: Adapter<VaultConfig> = {
  mesh: 'vault',
  title: 'Vault',
  config: { parse: parseConfig },
  tls: { minTlsVersion: 'v1.2' },
  tokenFields: [{ path: 'auth.serviceAccount', names: 'account' }],
  expect: ({ id }) => ({ form: 'spiffe', id }),
  needs({ address, auth, caConfigMap }, { namespace }) {
    const { serviceAccount: name, audience } = auth;
    return [
      { kind: 'address', address: address.host, field: 'vault.address' },
      { kind: 'token', namespace, name, audience, field: 'vault.auth.serviceAccount' },
      ...(caConfigMap === undefined ? [] : [{ kind: 'configMap', namespace, name: caConfigMap } as const]),
    ];
  },
  open: (config, host) => new VaultIssuer(config, host),
};
