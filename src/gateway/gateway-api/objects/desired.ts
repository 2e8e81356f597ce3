import type { KubeObject, ObjectRef } from '../../../core/object.ts';
import { type PeerName, peerNameText } from '../../../mesh/targeting.ts';
import { type Certificate, formatCertificates } from '../../../pki/certificate.ts';
import { GatewayError } from '../../error.ts';
import type { PublicationInput, ReferenceInput } from '../../input.ts';
import { ownLabels } from '../../owner.ts';
import type { GatewayApiConfig } from '../spec/config.ts';
import { EXTENSIONS, STANDARD } from '../spec/resources.ts';
import type { GatewayApiTarget, PolicyTarget } from '../spec/target.ts';
import { configMapRef, grantRef, policyRef, rereadRef } from './names.ts';
import { revised } from './revision.ts';

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

const revisionIn = ({ targets }: References, namespace: string | undefined): number =>
  (targets ?? []).flatMap((one) => (one.kind === 'revision' && one.namespace === namespace ? [one.revision] : []))[0] ??
  0;

const grantedTo = ({ targets }: References): readonly string[] =>
  (targets ?? []).flatMap((target) => (target.kind === 'grant' ? [target.namespace] : []));

/** The bundle in each namespace, what Gateways need to name the Secret, the EnvoyProxy that makes a Secret be read again, and then the policies. */
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
    ...configMapsOf(input).map((ref) =>
      made(ref, { data: { 'ca.crt': revised(formatCertificates(bundle), revisionIn(input, ref.namespace)) } }),
    ),
    ...grantedTo(input).map((namespace) =>
      made(grantRef(input, namespace), {
        spec: {
          from: [{ group: STANDARD, kind: 'Gateway', namespace }],
          to: [{ group: '', kind: 'Secret', name: spec.secretName }],
        },
      }),
    ),
    ...rereadOf(input).map((ref) => made(ref, { spec: { backendTLS: { clientCertificateRef: secretField(input) } } })),
    ...policiesOf(input).map((target) => made(policyRef(input, target), { spec: policySpec(target, input) })),
  ];
}

export function policyRefs(input: References): readonly ObjectRef[] {
  const policies = policiesOf(input).map((target) => policyRef(input, target));
  const grants = grantedTo(input).map((namespace) => grantRef(input, namespace));
  return [...configMapsOf(input), ...grants, ...rereadOf(input), ...policies];
}

/** How a Gateway, an EnvoyProxy or a Backend names the pair. Envoy Gateway requires the namespace in an EnvoyProxy. */
export const secretField = ({
  meta,
  spec,
}: {
  readonly meta: { readonly namespace: string };
  readonly spec: { readonly secretName: string };
}) => ({
  group: '',
  kind: 'Secret',
  name: spec.secretName,
  namespace: meta.namespace,
});

function policySpec(
  { of, name: target, port, hostname, names }: PolicyTarget,
  { config, leaf }: PublicationInput<GatewayApiConfig, GatewayApiTarget>,
) {
  const subjectAltNames = names
    .map((name) => alternativeName(name, leaf))
    .toSorted((a, b) => (Object.values(a).join() < Object.values(b).join() ? -1 : 1));
  return {
    targetRefs: [
      of === 'Service'
        ? { group: '', kind: of, name: target, sectionName: port }
        : { group: EXTENSIONS, kind: of, name: target },
    ],
    validation: {
      caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: config.caConfigMapName }],
      hostname,
      ...(subjectAltNames.length > 0 ? { subjectAltNames } : {}),
    },
  };
}

function alternativeName(name: PeerName, leaf: Certificate) {
  const text = peerNameText(name, leaf.names.uris[0] ?? '');
  if (text === undefined) {
    const message = 'the leaf has no SPIFFE ID, so those of the upstreams are unknown; set gatewayApi.subjectAltNames';
    throw new GatewayError('ERR_GATEWAY_NAME', message);
  }
  return 'dns' in name ? { type: 'Hostname', hostname: text } : { type: 'URI', uri: text };
}
