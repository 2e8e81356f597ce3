import type { Adapter } from '../../src/mesh/adapter.ts';
import { checks, discover, pods } from './cluster.ts';
import { type ConsulConfig, configSchema, consulNeeds, serviceId } from './config.ts';
import { GrpcIssuer } from './grpc-issuer.ts';
import { HttpSource } from './http-source.ts';

/** Names the service of a pod; default: the name of its Kubernetes Service. */
const SERVICE_ANNOTATION = 'consul.hashicorp.com/connect-service';

/**
 * Consul Connect. Over HTTP the agent pushes identities; over gRPC the servers sign our own requests. The trust
 * domain is the cluster's UUID: unless it is configured, it is known only after the first answer and changes when
 * the cluster is rebuilt.
 */
export const consul: Adapter<ConsulConfig> = {
  mesh: 'consul',
  title: 'Consul',
  config: configSchema,
  expect(config) {
    const { trustDomain, datacenter } = config;
    if (trustDomain === undefined) return { form: 'spiffe' };
    if (datacenter === undefined) return { form: 'spiffe', trustDomain };
    return { form: 'spiffe', trustDomain, id: serviceId(config, trustDomain) };
  },
  needs: (config, { namespace }) => consulNeeds(config, namespace),
  // No ALPN: sidecars of tcp services offer none, and a gateway that offered h2 would have to speak it.
  tls: { minTlsVersion: 'v1.2' },
  tokenFields: [
    { path: 'auth.login.serviceAccount', names: 'account' },
    { path: 'auth.tokenFile', names: 'agent' },
    { path: 'auth.login', names: 'agent' },
  ],
  discover,
  pods,
  checks,
  peer: ({ annotations }, service) => ({ sibling: annotations[SERVICE_ANNOTATION] ?? service }),
  names: ({ uris: [uri = ''] }) => /^spiffe:\/\/[^/]+(\/ap\/[^/]+)?\/ns\/[^/]+\/dc\/[^/]+\/svc\/[^/]+$/.test(uri),
  open(config, host) {
    const { http, grpc } = config;
    if (http) return new HttpSource({ ...config, http }, host);
    if (grpc) return new GrpcIssuer({ ...config, grpc }, host);
    throw new TypeError('a parsed configuration has http or grpc');
  },
};
