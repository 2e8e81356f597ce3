import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { KubeObject, ObjectMeta, ObjectRef } from '../core/object.ts';
import type { Desired } from '../core/plan/plan.ts';
import { formatRootTimes, ROOT_TIMES_ANNOTATION } from '../core/trust/root-times.ts';
import type { RootTimes } from '../core/trust/trust.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Identity } from '../mesh/identity.ts';
import { type Certificate, formatCertificates } from '../pki/certificate.ts';
import { GatewayError } from './error.ts';
import { contextNameProblem, secretNameProblem } from './names.ts';
import { ownLabels } from './owner.ts';
import type { Target } from './targets.ts';

export interface PublicationInput {
  readonly meta: { readonly name: string; readonly namespace: string; readonly uid?: string | undefined };
  readonly spec: MeshCertificateSpec;
  /** How the mesh wishes to be spoken to, unless the user says otherwise. */
  readonly tls: Adapter['tls'];
  readonly identity: Pick<Identity, 'key' | 'chain'>;
  /** Never empty. */
  readonly bundle: readonly Certificate[];
  readonly since: RootTimes;
  /** One TLSContext each; absent: one for the whole mesh. */
  readonly targets?: readonly Target[] | undefined;
}

/** Trust before identity, both before what names them; retiring goes backwards. */
const ORDER = { trust: 1, identity: 2, context: 3 } as const;

const TLS_CONTEXT = { apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext' } as const;

/**
 * The objects that make Emissary speak mTLS with this identity: the bundle in a Secret of its own, since a changed
 * bundle beside an unchanged pair would go unnoticed; the pair in one Secret, so that it changes as one; and the
 * TLSContexts. Nothing here depends on the time: equal inputs are equal objects, and equal objects are not written.
 */
export function desiredObjects(input: PublicationInput): readonly Desired[] {
  const { spec, identity, bundle, since } = input;
  if (bundle.length === 0) {
    throw new GatewayError('ERR_GATEWAY_EMPTY_BUNDLE', `Secret ${spec.caSecretName}: the trust bundle has no root`);
  }
  const [leaf] = identity.chain;
  if (!leaf) {
    throw new GatewayError('ERR_GATEWAY_EMPTY_CHAIN', `Secret ${spec.secretName}: the identity has no certificate`);
  }
  const roots = formatCertificates(bundle);
  const times = formatRootTimes(since);
  const meta = (name: string, annotations?: Readonly<Record<string, string>>): ObjectMeta => ({
    name,
    namespace: input.meta.namespace,
    labels: ownLabels(input.meta, spec.labels),
    ...(annotations ? { annotations } : {}),
  });
  const desired: Desired[] = [
    {
      kind: 'secret',
      order: ORDER.trust,
      object: secret(
        meta(checked(spec.caSecretName), times === '' ? undefined : { [ROOT_TIMES_ANNOTATION]: times }),
        'Opaque',
        { 'tls.crt': roots, 'ca.crt': roots },
      ),
    },
    {
      kind: 'secret',
      order: ORDER.identity,
      leaf,
      object: secret(meta(checked(spec.secretName)), 'kubernetes.io/tls', {
        'tls.crt': formatCertificates(identity.chain),
        'tls.key': identity.key.toPem(),
        'ca.crt': roots,
      }),
    },
  ];
  if (spec.configMapName !== undefined) {
    const object = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: meta(spec.configMapName),
      data: { 'ca.crt': roots },
    };
    desired.push({ kind: 'secret', order: ORDER.trust, object });
  }
  for (const target of contextsOf(spec, input.targets)) {
    const object = { ...TLS_CONTEXT, metadata: meta(target.contextName), spec: contextFields(input, target) };
    desired.push({ kind: 'gateway', order: ORDER.context, object });
  }
  return desired;
}

/** What belongs to a publication, in the order of writing, whether or not it stands. */
export function publicationRefs(
  { metadata, spec }: { readonly metadata: ObjectMeta; readonly spec: MeshCertificateSpec },
  targets?: readonly Target[],
): readonly ObjectRef[] {
  const { namespace } = metadata;
  const named = (kind: string, name: string): ObjectRef => ({ apiVersion: 'v1', kind, namespace, name });
  return [
    named('Secret', spec.caSecretName),
    ...(spec.configMapName === undefined ? [] : [named('ConfigMap', spec.configMapName)]),
    named('Secret', spec.secretName),
    ...contextsOf(spec, targets).map(({ contextName }) => ({ ...TLS_CONTEXT, namespace, name: contextName })),
  ];
}

function contextsOf(spec: MeshCertificateSpec, targets: readonly Target[] | undefined): readonly Target[] {
  if (!spec.tlsContext.enabled) return [];
  return targets ?? [{ contextName: spec.tlsContext.name, sni: spec.tlsContext.sni }];
}

function contextFields(
  { spec, tls }: PublicationInput,
  { contextName, sni }: Target,
): Readonly<Record<string, unknown>> {
  const problem = contextNameProblem(contextName);
  if (problem) throw new GatewayError('ERR_GATEWAY_NAME', problem);
  const wish = spec.tlsContext;
  const server = sni ?? wish.sni;
  const alpn = wish.alpnProtocols ?? tls.alpnProtocols;
  const min = wish.minTlsVersion ?? tls.minTlsVersion;
  const max = wish.maxTlsVersion ?? tls.maxTlsVersion;
  return {
    ...(wish.ambassadorIds.length > 0 ? { ambassador_id: [...wish.ambassadorIds] } : {}),
    hosts: [],
    secret: spec.secretName,
    ca_secret: spec.caSecretName,
    ...(alpn === undefined ? {} : { alpn_protocols: alpn }),
    ...(server === undefined ? {} : { sni: server }),
    ...(min === undefined ? {} : { min_tls_version: min }),
    ...(max === undefined ? {} : { max_tls_version: max }),
  };
}

function checked(name: string): string {
  const problem = secretNameProblem(name);
  if (problem) throw new GatewayError('ERR_GATEWAY_NAME', problem);
  return name;
}

function secret(metadata: ObjectMeta, type: string, texts: Readonly<Record<string, string>>): KubeObject {
  const data = Object.entries(texts).map(([key, text]) => [key, Buffer.from(text).toString('base64')]);
  return { apiVersion: 'v1', kind: 'Secret', metadata, type, data: Object.fromEntries(data) };
}
