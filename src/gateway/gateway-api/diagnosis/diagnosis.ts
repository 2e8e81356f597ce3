import type { ObjectRef } from '../../../core/object.ts';
import type { KubeObject } from '../../../mesh/kube-object.ts';
import { fields, listOfFields } from '../../../mesh/kube-object.ts';
import type { ClusterSnapshot, Diagnosis, Finding } from '../../diagnosis.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import { backendChecks } from './backends.ts';
import { bundleChecks } from './bundles.ts';
import type { GatewayApiCheck } from './check.ts';
import { clientChecks } from './clients.ts';
import { policyChecks } from './policies.ts';
import { promiseChecks } from './promises.ts';
import { namedCertificate, worldOf } from './world.ts';

const CHECKS: readonly GatewayApiCheck[] = [
  ...policyChecks,
  ...clientChecks,
  ...bundleChecks,
  ...backendChecks,
  ...promiseChecks,
];

const CHANNEL = 'gateway.networking.k8s.io/channel';
const VERSION = 'gateway.networking.k8s.io/bundle-version';
const FIX = 'install the Gateway API, version 1.4 or later, from its standard channel';

export const gatewayApiDiagnosis: Diagnosis = {
  resources: [
    ...Object.values(KINDS),
    CORE_RESOURCES.endpointSlices,
    { ...KINDS.envoyProxies, kind: 'BackendTrafficPolicy', plural: 'backendtrafficpolicies' },
  ],
  checks: CHECKS,
  areas: [
    { prefix: 'MC15', name: 'BackendTLSPolicies' },
    { prefix: 'MC16', name: 'client certificates of Gateways' },
    { prefix: 'MC17', name: 'roots of BackendTLSPolicies' },
    { prefix: 'MC18', name: 'routes of Gateways' },
    { prefix: 'MC51', name: 'MeshCertificates for Gateway API' },
  ],
  objectsToRead,
  diagnose,
  served: [
    ...[KINDS.policies, KINDS.gateways, KINDS.classes, KINDS.httpRoutes].map((resource) => ({
      resource,
      fix: FIX,
      experimental,
    })),
    { resource: KINDS.envoyProxies, fix: 'install the CRDs of Envoy Gateway' },
  ],
};

function experimental({ metadata }: KubeObject) {
  const { [CHANNEL]: channel, [VERSION]: version } = metadata.annotations ?? {};
  if (channel !== 'experimental') return undefined;
  const message = `it is version ${version} of the experimental channel, whose fields and versions can change or go with the next upgrade`;
  return { message, fix: FIX };
}

function diagnose(snapshot: ClusterSnapshot): Finding[] {
  const world = worldOf(snapshot);
  return CHECKS.flatMap(({ code, severity, run }) => [...run(world)].map((hit) => ({ severity, ...hit, code })));
}

function objectsToRead(object: KubeObject): readonly ObjectRef[] {
  if (object.kind === KINDS.policies.kind) {
    const { namespace } = object.metadata;
    const { apiVersion, kind } = CORE_RESOURCES.configMaps;
    return listOfFields(fields(fields(object.spec).validation).caCertificateRefs)
      .filter((ref) => ref.kind === kind)
      .map(({ name }) => ({ apiVersion, kind, namespace, name: String(name) }));
  }
  const certificate = namedCertificate(object);
  return certificate ? [{ apiVersion: 'v1', kind: 'Secret', ...certificate.secret }] : [];
}
