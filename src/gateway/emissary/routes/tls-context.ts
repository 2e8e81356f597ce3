import type { KubeObject, ObjectRef } from '../../../core/object.ts';
import { GatewayError } from '../../error.ts';
import type { PublicationInput, ReferenceInput } from '../../input.ts';
import { ownLabels } from '../../owner.ts';
import type { EmissaryConfig } from '../spec/config.ts';
import { contextNameProblem } from '../spec/names.ts';
import type { Target } from './target.ts';

const TLS_CONTEXT = { apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext' } as const;

/** The TLSContexts that make Emissary speak mTLS with the identity: one for the mesh, or one for each target. */
export function desiredContexts(input: PublicationInput<EmissaryConfig, Target>): readonly KubeObject[] {
  const { meta, spec } = input;
  return contextsOf(input).map((target) => ({
    ...TLS_CONTEXT,
    metadata: { name: target.contextName, namespace: meta.namespace, labels: ownLabels(meta, spec.labels) },
    spec: contextFields(input, target),
  }));
}

export function contextRefs(input: ReferenceInput<EmissaryConfig, Target>): readonly ObjectRef[] {
  const { namespace } = input.meta;
  return contextsOf(input).map(({ contextName }) => ({ ...TLS_CONTEXT, namespace, name: contextName }));
}

function contextsOf({ config: { tlsContext }, targets }: ReferenceInput<EmissaryConfig, Target>): readonly Target[] {
  if (!tlsContext.enabled) return [];
  return targets ?? [{ contextName: tlsContext.name, sni: tlsContext.sni }];
}

function contextFields(
  { spec, config, tls, crlSecretName }: PublicationInput<EmissaryConfig, Target>,
  { contextName, sni }: Target,
): Readonly<Record<string, unknown>> {
  const problem = contextNameProblem(contextName);
  if (problem) throw new GatewayError('ERR_GATEWAY_NAME', problem);
  const fields = config.tlsContext;
  const server = sni ?? fields.sni;
  const alpn = fields.alpnProtocols ?? tls.alpnProtocols;
  const min = fields.minTlsVersion ?? tls.minTlsVersion;
  const max = fields.maxTlsVersion ?? tls.maxTlsVersion;
  return {
    ...(fields.ambassadorIds.length > 0 ? { ambassador_id: [...fields.ambassadorIds] } : {}),
    hosts: [],
    secret: spec.secretName,
    ca_secret: spec.caSecretName,
    ...(crlSecretName === undefined ? {} : { crl_secret: crlSecretName }),
    ...(alpn === undefined ? {} : { alpn_protocols: alpn }),
    ...(server === undefined ? {} : { sni: server }),
    ...(min === undefined ? {} : { min_tls_version: min }),
    ...(max === undefined ? {} : { max_tls_version: max }),
  };
}
