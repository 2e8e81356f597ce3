import { fields, type KubeObject, text } from '../../../mesh/kube-object.ts';
import type { JoinRequest, Onboarding, OnboardingWording } from '../../onboarding.ts';
import { isBackend } from '../routes/client.ts';
import { policyTarget } from '../routes/policies.ts';
import { backendsIn } from '../routes/usage.ts';
import type { GatewayApiConfig } from '../spec/config.ts';
import { CORE_RESOURCES as CORE, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import { CONFIGURATION, installationsOf } from './installations.ts';
import { standIns } from './stand-ins.ts';
import { targetsOf } from './targets.ts';
import { namespacesBehindRoutes, upstreamsOf } from './upstreams.ts';

const wording: OnboardingWording = {
  absent: 'no Gateway of Envoy Gateway exists',
  route: 'HTTPRoute',
  routes: 'HTTPRoutes',
  selector: 'gatewayApi.backends',
  namespaces: 'gatewayApi.backends.namespaces',
  blocked: 'which leads to what onboard did not create',
  cost: 'Envoy keeps the settings from before until the new ones are ready: 0 of 2,676 requests failed when this was measured.',
  released: 'leads to its Services again',
  inUse: (list) =>
    `${list} still lead to a Service or a Backend that has a BackendTLSPolicy of the agent, and onboard did not lead them there; without it, requests fail or are in plaintext. Move these routes and run this again (docs/gateway-api.md, "Taking it away")`,
};

/** Envoy Gateway: a Backend stands in for each Service, presents the certificate, and verifies who answers. */
export const gatewayApiOnboarding: Onboarding<GatewayApiConfig> = {
  wording,
  routes: [KINDS.httpRoutes, KINDS.grpcRoutes],
  reads: [KINDS.gateways, KINDS.classes, KINDS.backends, KINDS.grants],
  configMaps: [CONFIGURATION],
  own: ({ namespace }) => [
    { resource: KINDS.policies },
    { resource: CORE.configMaps },
    { resource: KINDS.envoyProxies, namespace },
    { resource: KINDS.grants, namespace },
  ],

  installations: installationsOf,
  settings: ({ object }) => [`GatewayClass ${text(fields(object.spec).gatewayClassName) ?? 'none'}`],
  notes: () => [],

  namespacesBehind: namespacesBehindRoutes,
  upstreams: upstreamsOf,

  specFor,
  extended(spec, request) {
    const before = fields(spec.gatewayApi);
    const backends = fields(before.backends);
    if (before.backends === undefined) return spec;
    const known = Array.isArray(backends.namespaces) ? backends.namespaces.map(String) : [];
    const namespaces = [...new Set([...known, ...namespacesOf(request)])].sort();
    if (namespaces.length === known.length) return spec;
    return { ...spec, gatewayApi: { ...before, backends: { ...backends, namespaces } } };
  },
  named: {},
  selector: ({ backends }) => backends?.selector.matchLabels,
  preparation: () => ({}),
  objectsFirst: true,
  // Envoy serves a changed cluster after 15 s, because the endpoints that it waits for never come.
  settleMs: 20_000,
  standIns,
  client: () => ({}),

  uses(route, own) {
    const { namespace = '' } = route.metadata;
    const covered = own.flatMap((one) => {
      const policy = policyTarget(one);
      if (policy) return [`${policy.of} ${policy.namespace}/${policy.name}`];
      return isBackend(one) ? [`${one.kind} ${one.metadata.namespace}/${one.metadata.name}`] : [];
    });
    return backendsIn(route.spec).some(({ kind = CORE.services.kind, namespace: place, name }) =>
      covered.includes(`${String(kind)} ${text(place) ?? namespace}/${String(name)}`),
    );
  },
  released: () => undefined,
  deselected: () => undefined,
};

/** Fields of a new MeshCertificate. The client certificate is that of the Backends, so that each mesh has its own. */
function specFor(request: JoinRequest): Readonly<Record<string, unknown>> {
  const namespaces = namespacesOf(request);
  return {
    gatewayApi: {
      clientCertificate: 'Backend',
      backends: {
        selector: { matchLabels: request.labels },
        ...(namespaces.length === 0 ? {} : { namespaces }),
      },
    },
  };
}

/** Of the routes and of their Services, but for the one that counts anyway. */
function namespacesOf({ installation, routes, gatewayObjects }: JoinRequest): readonly string[] {
  const behind = (route: KubeObject) => {
    const targets = targetsOf(route, gatewayObjects);
    return 'code' in targets ? [] : targets.map(({ namespace }) => namespace);
  };
  const all = routes.flatMap((route) => [route.metadata.namespace ?? '', ...behind(route)]);
  return [...new Set(all)].filter((one) => one !== installation.home).sort();
}
