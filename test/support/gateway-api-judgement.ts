import assert from 'node:assert/strict';
import { adapters } from '../../adapters/index.ts';
import { validateObject } from '../../src/config/validate.ts';
import type { GatewayApiConfig, PolicyTarget } from '../../src/gateway/gateway-api/config.ts';
import { gatewayApi } from '../../src/gateway/gateway-api/gateway.ts';
import type { TargetRules } from '../../src/mesh/cluster.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { clientCertificateRef, envoyProxy, SPEC } from './gateway-api.ts';

export const META = { name: 'istio', namespace: 'emissary' };
export const CONSENT = { 'meshcert.dev/allow-from': META.namespace };
export const ISTIO_PROTOCOLS = ['istio-http/1.1', 'istio', 'http/1.1'];
/** As the agent leaves it, with choices of the user. */
export const SETTINGS = {
  ...{ clientCertificateRef, alpnProtocols: ISTIO_PROTOCOLS },
  ...{ minVersion: '1.3', maxVersion: '1.3' },
};
export const PRESENTING = envoyProxy({ backendTLS: SETTINGS });
const ROUTES = ['Gateway', 'EnvoyProxy', 'Backend', 'Service'];

export interface Case {
  readonly objects: readonly KubeObject[];
  /** Replaces fields of `SPEC`. */
  readonly config?: object;
  /** Replaces all of `SPEC`. */
  readonly gatewayApi?: object;
  readonly mesh?: string;
  readonly rules?: TargetRules;
  readonly hidden?: readonly string[];
  readonly unserved?: readonly string[];
}

export function judgeCase({
  objects,
  config = {},
  gatewayApi: whole,
  mesh = 'istio',
  rules,
  hidden = [],
  unserved = [],
}: Case) {
  const object = {
    ...{ apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata: META },
    spec: {
      istio: { ca: { address: 'istiod:15012', serviceAccount: 'emissary' } },
      gatewayApi: whole ?? { ...SPEC, ...config },
    },
  };
  const parsed = validateObject(object, adapters, [gatewayApi]);
  assert.ok(parsed.ok, JSON.stringify(parsed));
  const { spec } = parsed.value;
  const adapter = adapters.find((one) => one.mesh === mesh);
  const input = { meta: META, spec, config: spec.gateways.gatewayApi as GatewayApiConfig, mesh: adapter, rules };
  const isOurs = ({ metadata }: KubeObject) => metadata.labels?.['meshcert.dev/owner'] === 'emissary.istio';
  const own = objects.filter(isOurs);
  const concern = gatewayApi.routes.concern(input, own);
  return gatewayApi.routes.judge(input, {
    routes: objects.filter(({ kind }) => ROUTES.includes(kind)).filter(concern),
    own,
    behind: (kind) => objects.filter((one) => one.kind === kind),
    unseen: new Map(),
    hidden: (kind) => (hidden.includes(kind) ? 'forbidden' : undefined),
    unserved: new Set(unserved),
  });
}

export const codesOf = (of: Case): readonly string[] =>
  judgeCase(of).verdicts.flatMap(({ route, outcome }) => ('code' in outcome ? [`${route.kind} ${outcome.code}`] : []));
export const policiesOf = (of: Case): readonly PolicyTarget[] =>
  judgeCase(of).targets.filter((target): target is PolicyTarget => target.kind === 'policy');
