import { createHash } from 'node:crypto';
import { type PeerName, peerNameText } from '../../mesh/cluster.ts';
import { fields, type KubeObject, type ObjectRef, text } from '../../objects/objects.ts';
import { type Certificate, formatCertificates } from '../../pki/certificate.ts';
import { GatewayError, type GatewayInput, type PublicationInput, type ReferenceInput } from '../gateway.ts';
import { ownLabels } from '../publication.ts';
import {
  CORE_RESOURCES,
  EXTENSIONS,
  GATEWAY_API_RESOURCES,
  type GatewayApiConfig,
  type GatewayApiTarget,
  type PolicyTarget,
  type ServicePort,
  STANDARD,
} from './config.ts';

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

/** Names are at most this long, so that they also fit into a label. */
const LONGEST = 63;
const HASH_DIGITS = 8;

/** Joins the parts with hyphens. If that is ambiguous or too long, a hash of the parts is added. */
function joined(certificate: string, parts: readonly string[], ending = ''): string {
  const plain = [certificate, ...parts].join('-');
  if (!parts.some((part) => part.includes('-')) && plain.length + ending.length <= LONGEST) return plain + ending;
  const digest = createHash('sha256')
    .update([certificate, ...parts].join('/'))
    .digest('hex')
    .slice(0, HASH_DIGITS);
  const rest = LONGEST - HASH_DIGITS - 1 - ending.length;
  return `${plain.slice(0, rest).replace(/(?<![-.])[-.]+$/, '')}-${digest}${ending}`;
}

/** `<certificate>-<service>-<port>`, or `<certificate>-<backend>.backend`: no Service or port has a dot in its name. */
export function policyRef(
  { meta }: Pick<GatewayInput<unknown>, 'meta'>,
  { namespace, of, name, port }: Pick<PolicyTarget, 'namespace' | 'of' | 'name' | 'port'>,
): ObjectRef {
  const { apiVersion, kind } = GATEWAY_API_RESOURCES.policies;
  const own = of === 'Service' ? joined(meta.name, [name, port]) : joined(meta.name, [name], '.backend');
  return { apiVersion, kind, namespace, name: own };
}

const configMapRef = (namespace: string, name: string): ObjectRef => {
  const { apiVersion, kind } = CORE_RESOURCES.configMaps;
  return { apiVersion, kind, namespace, name };
};

/** An EnvoyProxy that no Gateway uses. */
function rereadRef({ meta }: Pick<GatewayInput<unknown>, 'meta'>): ObjectRef {
  const { apiVersion, kind } = GATEWAY_API_RESOURCES.envoyProxies;
  return { apiVersion, kind, namespace: meta.namespace, name: `${meta.name}-reread` };
}

/**
 * Lets Gateways of one other namespace name the Secret: `<certificate>-<namespace>.gateways`. One for each namespace,
 * since a ReferenceGrant has at most 16 entries, and so that one that is refused concerns no other.
 */
export function grantRef({ meta }: Pick<GatewayInput<unknown>, 'meta'>, from: string): ObjectRef {
  const { apiVersion, kind } = GATEWAY_API_RESOURCES.grants;
  return { apiVersion, kind, namespace: meta.namespace, name: joined(meta.name, [from], '.gateways') };
}

export const secretRef = ({ meta, spec }: Pick<GatewayInput<unknown>, 'meta' | 'spec'>): ObjectRef => ({
  apiVersion: 'v1',
  kind: 'Secret',
  namespace: meta.namespace,
  name: spec.secretName,
});

/** The name of a Backend that stands in for a port of a Service: `<service>-<namespace>-<port>`. */
export const standInName = ({ namespace, name, port }: ServicePort): string => joined(name, [namespace, String(port)]);

/** On a ConfigMap: makes its text different, though the roots are the same. */
export const REVISION_ANNOTATION = 'meshcert.dev/revision';

/** Revisions are counted in lines at the end of the text, and start again after this many. */
const REVISIONS = 8;

/** The roots as this revision writes them. */
const revised = (pem: string, revision: number): string => pem + '\n'.repeat(revision % REVISIONS);

/** The revision that the text of a ConfigMap has. */
export function revisionOf({ data }: KubeObject): number {
  const pem = text(fields(data)['ca.crt']) ?? '';
  // The first one belongs to the last certificate.
  return Math.max(0, pem.length - pem.trimEnd().length - 1);
}

/** The revision that was asked for, by the annotation; 0 without one. */
export function revisionWanted({ metadata }: KubeObject): number {
  const wanted = Number(metadata.annotations?.[REVISION_ANNOTATION]);
  return Number.isInteger(wanted) && wanted > 0 ? wanted % REVISIONS : 0;
}
