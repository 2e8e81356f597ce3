import type { Adapter } from '../../src/mesh/adapter.ts';
import { parseSpiffeId } from '../../src/pki/names.ts';
import { checks, discover } from './cluster.ts';
import { addressOf, type SpiffeConfig, spiffeConfig } from './config.ts';
import { expectation, SvidSource } from './source.ts';

/**
 * Any server of the SPIFFE Workload API, such as the SPIRE agent; experimentally, of the SPIFFE Broker API.
 *
 * ```yaml
 * spec: {spiffe: {socket: /run/spire/agent-sockets/spire-agent.sock, id: spiffe://example.org/gateway}}
 * ```
 */
export const spiffe: Adapter<SpiffeConfig> = {
  mesh: 'spiffe',
  title: 'SPIFFE',
  config: spiffeConfig,
  expect: expectation,
  // The server decides by the process that connects, so the address alone says whose key it gives out.
  needs(config) {
    const field = config.socket === undefined ? 'spiffe.address' : 'spiffe.socket';
    const workloadApi = { kind: 'address', address: addressOf(config), field } as const;
    if (!config.broker) return [workloadApi];
    const brokerField = config.broker.socket === undefined ? 'spiffe.broker.address' : 'spiffe.broker.socket';
    return [workloadApi, { kind: 'address', address: addressOf(config.broker), field: brokerField }];
  },
  // Upstreams of a SPIFFE trust domain need not be proxies of one kind: none of them is known to need an ALPN protocol.
  tls: {},
  revokes: true,
  discover,
  checks,
  names: ({ uris: [uri = ''] }) => parseSpiffeId(uri) !== undefined,
  open: (config, host) => new SvidSource(config, host),
};
