import type { Gateway } from '../../src/gateway/gateway.ts';
import { NAMESPACE } from '../support/agent-world.ts';
import { TOY, toyDefinitions, toyGateway } from '../support/toy-gateway.ts';
import { gatewayContract } from './gateway-contract.ts';

gatewayContract('the toy gateway', {
  gateway: toyGateway as Gateway,
  spec: { toy: { selector: { mesh: 'istio' } } },
  route: {
    apiVersion: TOY.routes.apiVersion,
    kind: TOY.routes.kind,
    metadata: { name: 'web', namespace: NAMESPACE, labels: { mesh: 'istio' } },
    spec: { service: 'web' },
  },
  unselected: ({ metadata: { labels: _, ...metadata }, ...route }) => ({ ...route, metadata }),
  definitions: toyDefinitions(),
});
