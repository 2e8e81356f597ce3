import type { Gateway, Loading, Onboarding, RouteState, Wording } from '../gateway.ts';

import { GATEWAY_API_RESOURCES, type GatewayApiConfig, type GatewayApiTarget, gatewayApiFields } from './config.ts';

import { gatewayApiDiagnosis } from './diagnosis.ts';
import { gatewayApiLoading } from './loading.ts';
import { desiredPolicies, policyRefs } from './objects.ts';
import { gatewayApiOnboarding } from './onboarding.ts';
import { gatewayApiRoutes, secretsNamedBy } from './routes.ts';

const nameOf = ({ kind, namespace, name }: RouteState): string => `${kind} ${namespace}/${name}`;

const wording: Wording = {
  everything: 'Gateways, EnvoyProxies, Backends, Services and BackendTLSPolicies',
  release:
    'clientCertificateRef of a Gateway, an EnvoyProxy or a Backend, and the routes to what has a BackendTLSPolicy',
  orphan: 'deleted an object of Gateway API that no route needs',
  missing: 'requests go to the upstreams in plaintext',
  reasons: ['AllServices', 'NoGateway', 'NoService', 'ServicesLeftAlone'],
  referenced(states, left) {
    const [first] = left;
    if (first) {
      const message = `${left.length} of ${states.length} object(s) cannot use it, first ${nameOf(first)}: ${first.state}: ${first.message}`;
      return { status: 'False', reason: 'ServicesLeftAlone', message };
    }
    // What presents the certificate leads to no upstream by itself.
    const verified = states.filter(({ service }) => service !== '');
    if (verified.length === states.length) {
      const message =
        'No Gateway or Backend presents the certificate; label one as the selectors of spec.gatewayApi require.';
      return { status: 'False', reason: 'NoGateway', message };
    }
    if (verified.length === 0) {
      const message = 'No Service or Backend is verified; label one as the selectors of spec.gatewayApi require.';
      return { status: 'False', reason: 'NoService', message };
    }
    const message = `${verified.length} upstream(s) are verified: ports of Services, and Backends.`;
    return { status: 'True', reason: 'AllServices', message };
  },
};

/**
 * Gateway API: a Gateway, or an EnvoyProxy or a Backend of Envoy Gateway, presents the pair, and a BackendTLSPolicy for
 * each port of a Service, or for each Backend, says who may answer.
 */
export const gatewayApi: Gateway<GatewayApiConfig, GatewayApiTarget> = {
  ...gatewayApiFields,
  title: 'Gateway API',
  resources: Object.values(GATEWAY_API_RESOURCES),
  desired: desiredPolicies,
  references: policyRefs,
  secretNameProblem: () => undefined,
  routes: gatewayApiRoutes,
  batchGapMs: 0,
  secretsNamedBy,
  definitions: 'the Gateway API, version 1.4 or later, and the CRDs of Envoy Gateway',
  wording,
  diagnosis: gatewayApiDiagnosis,
  loading: gatewayApiLoading as Loading<GatewayApiConfig>,
  onboarding: gatewayApiOnboarding as Onboarding<GatewayApiConfig>,
};
