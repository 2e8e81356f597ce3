import type { Need } from '../../src/mesh/adapter.ts';
import { type ConsulConfig, destinationsOf } from './config.ts';

/** What Consul's adapter reads, mints and dials. */
export function consulNeeds(config: ConsulConfig, namespace: string): readonly Need[] {
  const { http, grpc, auth } = config;
  const needs: Need[] = destinationsOf(config).map(({ address }, at) => ({
    kind: 'address',
    address,
    field: http ? 'consul.http.address' : `consul.grpc.addresses[${at}]`,
  }));
  const { serviceAccount, audience = '' } = auth?.login ?? {};
  if (serviceAccount !== undefined) {
    const field = 'consul.auth.login.serviceAccount';
    needs.push({ kind: 'token', namespace, name: serviceAccount, audience, field });
  }
  for (const configMap of [http?.tls?.ca?.configMap, grpc?.tls?.ca?.configMap]) {
    if (!configMap) continue;
    needs.push({ kind: 'configMap', namespace: configMap.namespace ?? namespace, name: configMap.name });
  }
  return needs;
}
