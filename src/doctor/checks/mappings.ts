import { describe, refOf } from '../../core/object.ts';
import { fields, text } from '../../gateway/kinds.ts';
import { parseService } from '../../gateway/service.ts';
import type { Check } from '../check.ts';
import type { SeenMapping } from '../world.ts';

const EDS_POLICIES = ['round_robin', 'least_request', 'ring_hash', 'maglev'];
const withTls = (mappings: readonly SeenMapping[]) => mappings.filter(({ spec }) => spec.tls !== undefined);

export const mappingChecks: readonly Check[] = [
  {
    code: 'MC1301',
    severity: 'warning',
    title: 'Without https://, a missing certificate means plaintext',
    *run({ mappings }) {
      for (const { object, spec } of withTls(mappings)) {
        const { scheme, host, port = 443 } = parseService(spec.service, object.kind !== 'TCPMapping');
        if (scheme !== undefined || object.kind === 'TCPMapping') continue;
        yield {
          object,
          message: `service ${spec.service} has no scheme: as soon as its TLSContext or Secret is missing or unusable, requests go out in plaintext`,
          fix: `write https://${host}:${port}: the worst case is then a refused handshake`,
        };
      }
    },
  },
  {
    code: 'MC1302',
    severity: 'warning',
    title: 'http:// and a TLSContext contradict each other',
    *run({ mappings }) {
      for (const { object, spec } of withTls(mappings)) {
        if (object.kind === 'TCPMapping' || parseService(spec.service).scheme !== 'http') continue;
        yield {
          object,
          message: `service ${spec.service} says http, and spec.tls says TLS: Emissary uses TLS, posts an error, and falls back to plaintext when the context is missing`,
          fix: 'write https://',
        };
      }
    },
  },
  {
    code: 'MC1303',
    severity: 'error',
    title: 'Two TLSContexts on one https service share one cluster',
    *run({ mappings }) {
      const first = new Map<string, SeenMapping>();
      for (const mapping of mappings) {
        const before = first.get(mapping.upstream.cluster);
        if (!before) first.set(mapping.upstream.cluster, mapping);
        else if (before.spec.tls !== mapping.spec.tls) {
          yield {
            object: mapping.object,
            message: `it shares the cluster of ${describe(refOf(before.object))}, since both say ${mapping.spec.service}: the TLSContext ${String(before.spec.tls ?? 'of neither')} serves both, ${String(mapping.spec.tls ?? 'none')} is ignored`,
            fix: 'give both Mappings one TLSContext, or write the host in two ways (name.namespace and name.namespace.svc)',
          };
        }
      }
    },
  },
  {
    code: 'MC1304',
    severity: 'error',
    title: 'The service of a Mapping cannot be read',
    *run({ mappings }) {
      for (const { object, spec } of withTls(mappings)) {
        const { errors } = parseService(spec.service, object.kind !== 'TCPMapping');
        if (errors.length === 0 || object.kind === 'TCPMapping') continue;
        yield { object, message: errors.join('; '), fix: 'write https://NAME.NAMESPACE:PORT' };
      }
    },
  },
  {
    code: 'MC1305',
    severity: 'warning',
    title: 'tls: "true" shows no certificate and verifies none',
    *run({ mappings }) {
      for (const { object, spec } of mappings) {
        if (spec.tls !== true) continue;
        yield {
          object,
          message: 'TLS without a TLSContext: no client certificate, and whoever answers is taken for the upstream',
          fix: 'name a TLSContext',
        };
      }
    },
  },
  {
    code: 'MC1306',
    severity: 'warning',
    title: 'Every rotation answers 503 for a moment',
    *run({ mappings, all, env }) {
      if (env.edsBypass) return;
      const resolvers = ['KubernetesEndpointResolver', 'ConsulResolver']
        .flatMap(all)
        .map(({ metadata }) => metadata.name);
      const module = all('Module').find(({ metadata }) => metadata.name === 'ambassador');
      const config = fields(fields(module?.spec).config);
      for (const { object, spec } of withTls(mappings)) {
        const policy = spec.loadBalancerPolicy ?? text(fields(config.load_balancer).policy);
        const resolver = spec.resolver ?? text(config.resolver);
        const endpoints = (policy && EDS_POLICIES.includes(policy)) || (resolver && resolvers.includes(resolver));
        if (!endpoints) continue;
        yield {
          object,
          message: `its endpoints come by EDS (${resolver ?? policy}), and AMBASSADOR_EDS_BYPASS is not set: when a certificate changes, Envoy warms the cluster anew and has no healthy upstream for a while`,
          fix: 'set AMBASSADOR_EDS_BYPASS=true on the gateway (2.4.0, 3.2.0 and later)',
        };
      }
    },
  },
  {
    code: 'MC1307',
    severity: 'note',
    title: 'Any workload of the mesh passes for the upstream',
    *run({ mappings, contexts }) {
      const [first] = contexts.filter(({ used, reading }) => used && reading.usable && reading.ca);
      const count = mappings.filter(({ upstream }) => upstream.mode === 'mtls').length;
      if (!first || count === 0) return;
      yield {
        object: first.object,
        message: `Emissary has Envoy check that a root vouches for the upstream, never who it is: ${count} Mapping${count === 1 ? '' : 's'} would accept any workload of the mesh`,
        fix: 'nothing to do in Emissary; keep it in mind, or use a gateway that compares URI names (Gateway API BackendTLSPolicy)',
      };
    },
  },
];
