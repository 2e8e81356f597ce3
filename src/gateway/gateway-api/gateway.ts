import type { Gateway, RouteState, Wording } from '../gateway.ts';
import type { Loading } from '../loading.ts';
import { gatewayApiDiagnosis } from './diagnosis/diagnosis.ts';
import { gatewayApiLoading } from './loading/loading.ts';
import { desiredPolicies, policyRefs } from './objects/desired.ts';
import { secretsNamedBy } from './routes/client.ts';
import { gatewayApiRoutes } from './routes/routes.ts';
import { type GatewayApiConfig, gatewayApiFields } from './spec/config.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES } from './spec/resources.ts';
import type { GatewayApiTarget } from './spec/target.ts';

const nameOf = ({ kind, namespace, name }: RouteState): string => `${kind} ${namespace}/${name}`;

const wording: Wording = {
  everything: 'Gateways, EnvoyProxies, Services and BackendTLSPolicies',
  release:
    'clientCertificateRef of a Gateway or an EnvoyProxy, and the routes to a Service that has a BackendTLSPolicy',
  orphan: 'deleted an object of Gateway API that no route needs',
  missing: 'requests go to the Services in plaintext',
  reasons: ['AllServices', 'NoGateway', 'NoService', 'ServicesLeftAlone'],
  referenced(states, left) {
    const [first] = left;
    if (first) {
      const message = `${left.length} of ${states.length} object(s) cannot use it, first ${nameOf(first)}: ${first.code}: ${first.message}`;
      return { status: 'False', reason: 'ServicesLeftAlone', message };
    }
    const services = states.filter(({ kind }) => kind === CORE_RESOURCES.services.kind);
    if (services.length === states.length) {
      const message = 'No Gateway presents the certificate; label one as spec.gatewayApi.gateways.selector requires.';
      return { status: 'False', reason: 'NoGateway', message };
    }
    if (services.length === 0) {
      const message = 'No Service is verified; label one as spec.gatewayApi.services.selector requires.';
      return { status: 'False', reason: 'NoService', message };
    }
    const message = `${services.length} port(s) of Services are verified.`;
    return { status: 'True', reason: 'AllServices', message };
  },
};

/**
 * Gateway API: a Gateway, or the EnvoyProxy of Envoy Gateway, presents the pair, and a BackendTLSPolicy for each port of
 * a Service says who may answer.
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
};
