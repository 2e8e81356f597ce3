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
  endpointResolvers: ambassador('KubernetesEndpointResolver', 'kubernetesendpointresolvers'),
  hosts: ambassador('Host', 'hosts'),
} as const;

/** Of the one field `spec.tls` that we set on Mappings. */
export const MAPPING_FIELD_MANAGER = 'meshcert-mappings';
