import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { Desired } from '../core/plan.ts';
import { codedProblem, type Problem } from '../core/problem.ts';
import { formatRootTimes, ROOT_TIMES_ANNOTATION, type RootTimes } from '../core/trust.ts';

import { type PublishedUpstreamTrust, UPSTREAM_TRUST_DOMAIN_ANNOTATION } from '../core/upstream-trust.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Identity } from '../mesh/identity.ts';
import type { KubeObject, ObjectMeta, ObjectRef } from '../objects/objects.ts';
import { type Certificate, formatCertificates } from '../pki/certificate.ts';
import { type Crl, formatCrls } from '../pki/crl.ts';
import { GatewayError, type GatewayInput, type GatewayUse, ORDER } from './gateway.ts';

import { ownLabels } from './publication.ts';

export interface Publishing {
  readonly meta: GatewayInput<unknown>['meta'];
  readonly spec: MeshCertificateSpec;
  /** How the mesh must be addressed, unless the user configures otherwise. */
  readonly tls: Adapter['tls'];
  readonly identity: Pick<Identity, 'key' | 'chain'>;
  /** Never empty. */
  readonly bundle: readonly Certificate[];
  readonly since: RootTimes;
  /** Verifies upstreams in place of `bundle`, which then stands only beside the pair that it proves. */
  readonly upstream?: PublishedUpstreamTrust | undefined;
  /** Absent or empty: upstreams are not checked for revocation. */
  readonly crls?: readonly Crl[] | undefined;
  readonly uses: readonly GatewayUse[];
}

/**
 * All objects of a publication: the bundle in its own Secret, since a changed bundle beside an unchanged pair would go
 * unnoticed; the pair in one Secret, so that it changes as one; and the objects that the gateways add. Nothing here
 * depends on the time: equal inputs give equal objects, and equal objects are not written.
 */
export function desiredObjects({
  meta,
  spec,
  tls,
  identity,
  bundle,
  since,
  upstream,
  crls = [],
  uses,
}: Publishing): readonly Desired[] {
  const trusted = upstream ?? { bundle, since };
  if (bundle.length === 0 || trusted.bundle.length === 0) {
    throw new GatewayError('ERR_GATEWAY_EMPTY_BUNDLE', `Secret ${spec.caSecretName}: the trust bundle has no root`);
  }
  const [leaf] = identity.chain;
  if (!leaf) {
    throw new GatewayError('ERR_GATEWAY_EMPTY_CHAIN', `Secret ${spec.secretName}: the identity has no certificate`);
  }
  const roots = formatCertificates(trusted.bundle);
  const domain = upstream ? { [UPSTREAM_TRUST_DOMAIN_ANNOTATION]: upstream.trustDomain } : {};
  const metaOf = (name: string, annotations: Readonly<Record<string, string>> = {}): ObjectMeta => ({
    name,
    namespace: meta.namespace,
    labels: ownLabels(meta, spec.labels),
    ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
  });
  for (const name of [spec.caSecretName, spec.secretName]) requireReadable(name, uses);
  const desired: Desired[] = [
    {
      order: ORDER.trust,
      object: secret(metaOf(spec.caSecretName, { ...timesOf(trusted.since), ...domain }), 'Opaque', {
        'tls.crt': roots,
        'ca.crt': roots,
      }),
    },
    {
      order: ORDER.identity,
      leaf,
      object: secret(metaOf(spec.secretName, upstream ? { ...timesOf(since), ...domain } : {}), 'kubernetes.io/tls', {
        'tls.crt': formatCertificates(identity.chain),
        'tls.key': identity.key.toPem(),
        'ca.crt': upstream ? formatCertificates(bundle) : roots,
      }),
    },
  ];
  if (spec.configMapName !== undefined) {
    const metadata = metaOf(spec.configMapName);
    desired.push({
      order: ORDER.trust,
      object: { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { 'ca.crt': roots } },
    });
  }
  const { crlSecretName } = spec;
  const revokes = crlSecretName !== undefined && crls.length > 0;
  if (revokes) {
    const object = secret(metaOf(crlSecretName), 'Opaque', { 'crl.pem': formatCrls(crls) });
    desired.push({ order: ORDER.trust, object });
  }
  for (const { gateway, config, targets } of uses) {
    for (const object of gateway.desired({
      meta,
      spec,
      config,
      tls,
      bundle: trusted.bundle,
      leaf,
      targets,
      ...(revokes ? { crlSecretName } : {}),
    })) {
      desired.push({ gateway: gateway.kind, order: ORDER.gateway, object });
    }
  }
  return desired;
}

/** Like `desiredObjects`; content that a gateway would misread is a problem of the MeshCertificate. */
export function tryDesiredObjects(
  publishing: Publishing,
): { readonly objects: readonly Desired[] } | { readonly problem: Problem } {
  try {
    return { objects: desiredObjects(publishing) };
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    return { problem: codedProblem(error) };
  }
}

/** References of all objects of a publication, in the order of writing, whether they exist or not. */
export function publicationRefs(
  { metadata, spec }: { readonly metadata: ObjectMeta; readonly spec: MeshCertificateSpec },
  uses: readonly GatewayUse[],
): readonly ObjectRef[] {
  const { name, namespace = '', uid } = metadata;
  const named = (kind: string, name: string): ObjectRef => ({ apiVersion: 'v1', kind, namespace, name });
  return [
    named('Secret', spec.caSecretName),
    ...(spec.crlSecretName === undefined ? [] : [named('Secret', spec.crlSecretName)]),
    ...(spec.configMapName === undefined ? [] : [named('ConfigMap', spec.configMapName)]),
    named('Secret', spec.secretName),
    ...uses.flatMap(({ gateway, config, targets }) =>
      gateway.references({ meta: { name, namespace, uid }, spec, config, targets }),
    ),
  ];
}

function requireReadable(name: string, uses: readonly GatewayUse[]): void {
  for (const { gateway } of uses) {
    const problem = gateway.secretNameProblem(name);
    if (problem) throw new GatewayError('ERR_GATEWAY_NAME', problem);
  }
}

function timesOf(since: RootTimes): Readonly<Record<string, string>> {
  const times = formatRootTimes(since);
  return times === '' ? {} : { [ROOT_TIMES_ANNOTATION]: times };
}

function secret(metadata: ObjectMeta, type: string, texts: Readonly<Record<string, string>>): KubeObject {
  const data = Object.entries(texts).map(([key, text]) => [key, Buffer.from(text).toString('base64')]);
  return { apiVersion: 'v1', kind: 'Secret', metadata, type, data: Object.fromEntries(data) };
}
