import { podsBehind } from '../../src/gateway/emissary/routes.ts';
import type { Gateway, GatewayInstallation, Onboarding } from '../../src/gateway/gateway.ts';

import { fields, text } from '../../src/objects/objects.ts';
import { TOY, type ToyConfig, toyGateway } from './toy-gateway.ts';

/** As a gateway may be whose objects exist only once a route is selected, and whose routes need no preparation. */
const onboarding: Onboarding<ToyConfig> = {
  wording: {
    absent: 'no Deployment runs the toy',
    route: 'ToyRoute',
    routes: 'ToyRoutes',
    selector: 'toy.selector',
    namespaces: 'toy.namespaces',
    blocked: 'whose policy is of somebody else',
    cost: 'A ToyRoute moves at once.',
    released: 'has no policy any more',
    inUse: (list) => `${list} still use a ToyPolicy; remove spec.policy there`,
  },
  routes: [TOY.routes],
  reads: [],
  configMaps: [],
  own: ({ namespace }) => [{ resource: TOY.clients, namespace }, { resource: TOY.policies }],
  installations: ({ workloads }) =>
    workloads
      .filter(({ metadata }) => metadata.labels?.app === 'toy')
      .map((object): GatewayInstallation => {
        const home = object.metadata.namespace ?? '';
        const common = { product: 'Toy', version: '1.0', serviceAccount: 'toy', gapMs: 0 };
        return { ...common, object, home, workload: object };
      }),
  settings: () => ['plays everywhere'],
  notes: () => ['it is a toy'],
  namespacesBehind: ({ gatewayObjects }) =>
    gatewayObjects.filter(({ kind }) => kind === TOY.routes.kind).map(({ metadata }) => metadata.namespace ?? ''),
  upstreams: (_installation, objects) =>
    objects.gatewayObjects
      .filter(({ kind }) => kind === TOY.routes.kind)
      .map((route) => {
        const { namespace = '' } = route.metadata;
        const service = text(fields(route.spec).service) ?? '';
        const answering = podsBehind({ name: service, namespace }, 80, objects);
        return {
          route,
          service,
          address: `${service}.${namespace}:80`,
          now: text(fields(route.spec).policy) ?? 'plaintext',
          answering: 'code' in answering ? answering : answering.map(({ workload }) => workload),
          requests: 'the toy answers nothing',
        };
      }),
  specFor: ({ labels, namespaces }) => ({ toy: { selector: labels, namespaces: [...new Set(namespaces)].sort() } }),
  extended(spec, { namespaces, labels }) {
    const before = fields(spec.toy);
    const known = Array.isArray(before.namespaces) ? before.namespaces.map(String) : [];
    return {
      ...spec,
      toy: { selector: labels, ...before, namespaces: [...new Set([...known, ...namespaces])].sort() },
    };
  },
  named: {},
  selector: ({ selector }) => selector,
  preparation: () => ({}),
  objectsFirst: false,
  settleMs: 0,
  client: () => ({}),
  uses: (route, own) =>
    own.some(
      ({ kind, metadata }) =>
        kind === TOY.policies.kind &&
        metadata.namespace === route.metadata.namespace &&
        metadata.name === fields(route.spec).policy,
    ),
  released(route) {
    const { policy, ...spec } = fields(route.spec);
    return policy === undefined ? undefined : { route: { ...route, spec }, fieldManager: 'meshcert-toy' };
  },
  deselected: ({ toy }) => (toy === undefined ? undefined : { toy: { selector: { 'toy.test/none': '' } } }),
};

export const onboardableToy: Gateway = { ...(toyGateway as Gateway), onboarding: onboarding as Onboarding };
