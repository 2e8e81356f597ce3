import type { KubeObject, ObjectRef } from '../../../core/object.ts';
import type { PeerName } from '../../../mesh/targeting.ts';
import { type Certificate, formatCertificates } from '../../../pki/certificate.ts';
import { formatSpiffeId, parseSpiffeId } from '../../../pki/spiffe.ts';
import { GatewayError } from '../../error.ts';
import type { PublicationInput, ReferenceInput } from '../../input.ts';
import { ownLabels } from '../../owner.ts';
import type { GatewayApiConfig } from '../spec/config.ts';
import type { GatewayApiTarget, PolicyTarget } from '../spec/target.ts';
import { configMapRef, policyRef, rereadRef } from './names.ts';

type References = ReferenceInput<GatewayApiConfig, GatewayApiTarget>;

const isPolicy = (target: GatewayApiTarget): target is PolicyTarget => target.kind === 'policy';
const policiesOf = ({ targets }: References): readonly PolicyTarget[] => (targets ?? []).filter(isPolicy);

/** Policies name a ConfigMap of their own namespace. */
function configMapsOf(input: References): readonly ObjectRef[] {
  const { meta, spec, config } = input;
  const namespaces = [...new Set(policiesOf(input).map(({ namespace }) => namespace))];
  return (
    namespaces
      // The publication itself may have a ConfigMap of this name and content.
      .filter((namespace) => namespace !== meta.namespace || spec.configMapName !== config.caConfigMapName)
      .map((namespace) => configMapRef(namespace, config.caConfigMapName))
  );
}

const rereadOf = (input: References): readonly ObjectRef[] =>
  (input.targets ?? []).some(({ kind }) => kind === 'reread') ? [rereadRef(input)] : [];

/** The bundle in each namespace, the EnvoyProxy that makes a Secret be read again, and then the policies. */
export function desiredPolicies(input: PublicationInput<GatewayApiConfig, GatewayApiTarget>): readonly KubeObject[] {
  const { meta, spec, bundle } = input;
  const labels = ownLabels(meta, spec.labels);
  const made = ({ apiVersion, kind, namespace, name }: ObjectRef, content: object): KubeObject => ({
    apiVersion,
    kind,
    metadata: { name, namespace: namespace ?? meta.namespace, labels },
    ...content,
  });
  return [
    ...configMapsOf(input).map((ref) => made(ref, { data: { 'ca.crt': formatCertificates(bundle) } })),
    ...rereadOf(input).map((ref) => made(ref, { spec: { backendTLS: { clientCertificateRef: secretField(input) } } })),
    ...policiesOf(input).map((target) => made(policyRef(input, target), { spec: policySpec(target, input) })),
  ];
}

export function policyRefs(input: References): readonly ObjectRef[] {
  return [...configMapsOf(input), ...rereadOf(input), ...policiesOf(input).map((target) => policyRef(input, target))];
}

/** How a Gateway or an EnvoyProxy names the pair. Envoy Gateway requires the namespace in an EnvoyProxy. */
export const secretField = ({ meta, spec }: Pick<References, 'meta' | 'spec'>) => ({
  group: '',
  kind: 'Secret',
  name: spec.secretName,
  namespace: meta.namespace,
});

function policySpec(
  { service, port, hostname, names }: PolicyTarget,
  { config, leaf }: PublicationInput<GatewayApiConfig, GatewayApiTarget>,
) {
  const subjectAltNames = names
    .map((name) => alternativeName(name, leaf))
    .toSorted((a, b) => (Object.values(a).join() < Object.values(b).join() ? -1 : 1));
  return {
    targetRefs: [{ group: '', kind: 'Service', name: service, sectionName: port }],
    validation: {
      caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: config.caConfigMapName }],
      hostname,
      ...(subjectAltNames.length > 0 ? { subjectAltNames } : {}),
    },
  };
}

function alternativeName(name: PeerName, leaf: Certificate) {
  if ('dns' in name) return { type: 'Hostname', hostname: name.dns };
  if ('uri' in name) return { type: 'URI', uri: name.uri };
  const own = parseSpiffeId(leaf.names.uris[0] ?? '');
  if (!own) {
    const message = 'the leaf has no SPIFFE ID, so those of the upstreams are unknown; set gatewayApi.subjectAltNames';
    throw new GatewayError('ERR_GATEWAY_NAME', message);
  }
  const path = 'path' in name ? name.path : own.path.replace(/[^/]*$/, name.sibling);
  return { type: 'URI', uri: formatSpiffeId({ trustDomain: own.trustDomain, path }) };
}
