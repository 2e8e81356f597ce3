import type { Resource } from '../../../core/object.ts';

const ambassador = (kind: string, plural: string): Resource => ({
  apiVersion: 'getambassador.io/v3alpha1',
  kind,
  plural,
  namespaced: true,
});

export const EMISSARY_RESOURCES = {
  tlsContexts: ambassador('TLSContext', 'tlscontexts'),
  mappings: ambassador('Mapping', 'mappings'),
  tcpMappings: ambassador('TCPMapping', 'tcpmappings'),
  modules: ambassador('Module', 'modules'),
  consulResolvers: ambassador('ConsulResolver', 'consulresolvers'),
  serviceResolvers: ambassador('KubernetesServiceResolver', 'kubernetesserviceresolvers'),
  endpointResolvers: ambassador('KubernetesEndpointResolver', 'kubernetesendpointresolvers'),
  hosts: ambassador('Host', 'hosts'),
} as const;

/** Owns the one field `spec.tls` that we set on Mappings. */
export const MAPPING_FIELD_MANAGER = 'meshcert-mappings';

/**
 * Emissary batches changes for a second; a Secret and a Mapping in one batch leave other clusters on the old
 * certificate until the next batch. Twice its default window keeps them in two.
 */
export const BATCH_GAP_MS = 2_000;
