import { emissary } from '../../src/gateway/emissary/gateway.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { NAMESPACE } from '../support/agent-world.ts';
import { gatewayContract } from './gateway-contract.ts';

gatewayContract('Emissary', {
  gateway: emissary as Gateway,
  spec: { mappings: { selector: { matchLabels: { mesh: 'istio' } } } },
  route: {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: 'web', namespace: NAMESPACE, labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: '/web/', service: 'https://web.shop:443' },
  },
  unselected: ({ metadata: { labels: _, ...metadata }, ...route }) => ({ ...route, metadata }),
});
