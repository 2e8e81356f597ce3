import { describe, refOf } from '../../../core/object.ts';
import type { Resolver } from '../reading/env.ts';
import { parseService } from '../reading/service.ts';
import type { DoctorCheck } from './check.ts';
import { type InterpretedCluster, insteadOf, type SeenMapping } from './world.ts';

const RESOLVERS = ['KubernetesServiceResolver', 'KubernetesEndpointResolver', 'ConsulResolver'];

/** Whether a resolver that is not among the objects does not exist. Files with one are taken to have all. */
const knowsResolvers = ({ snapshot, known }: InterpretedCluster): boolean =>
  snapshot.whole.size > 0 ? RESOLVERS.every((kind) => snapshot.whole.has(kind)) : RESOLVERS.some(known);

function fixOf(resolver: Resolver): string {
  if (resolver === 'unknown')
    return 'create the resolver with the ambassador_id of this gateway, or correct the name; a ConsulResolver needs a datacenter';
  return resolver === 'consul'
    ? 'write the name of the service that the ConsulResolver looks up, without a namespace'
    : 'set resolver: endpoint as well, or remove load_balancer';
}

const withTls = (mappings: readonly SeenMapping[]) => mappings.filter(({ spec }) => spec.tls !== undefined);

export const mappingChecks: readonly DoctorCheck[] = [
  {
    code: 'MC1301',
    severity: 'warning',
    title: 'Without https://, a missing certificate means plaintext',
    *run({ mappings }) {
      for (const { object, spec } of withTls(mappings)) {
        const { scheme, host, port = 443 } = parseService(spec.service);
        if (scheme !== undefined) continue;
        yield {
          object,
          message: `service ${spec.service} has no scheme: when its TLSContext or Secret is missing or unusable, requests are sent in plaintext`,
          fix: `write https://${host}:${port}: the worst case is then a failed handshake`,
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
        if (parseService(spec.service).scheme !== 'http') continue;
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
    title: 'Two Mappings with different TLSContexts share one cluster',
    *run({ mappings }) {
      const first = new Map<string, SeenMapping>();
      for (const mapping of mappings) {
        if (mapping.upstream.dropped !== undefined) continue;
        const before = first.get(mapping.upstream.cluster);
        if (!before) first.set(mapping.upstream.cluster, mapping);
        else if (before.spec.tls !== mapping.spec.tls) {
          const services = [...new Set([before.spec.service, mapping.spec.service])].join(' and ');
          yield {
            object: mapping.object,
            message: `it shares the cluster of ${describe(refOf(before.object))} (${services}): the TLSContext ${String(before.spec.tls ?? 'of neither')} serves both, ${String(mapping.spec.tls ?? 'none')} is ignored`,
            fix: 'give both Mappings the same TLSContext, or write the host differently in one of them (name.namespace and name.namespace.svc)',
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
      for (const { object, spec, upstream } of withTls(mappings)) {
        const { errors } = parseService(spec.service);
        if (errors.length === 0) continue;
        yield {
          object,
          message: `${errors.join('; ')}: requests go to ${upstream.host}:${upstream.port}`,
          fix: 'write https://NAME.NAMESPACE:PORT with a numeric port',
        };
      }
    },
  },
  {
    code: 'MC1305',
    severity: 'error',
    title: 'spec.tls is true instead of the name of a TLSContext',
    *run({ mappings }) {
      for (const { object, spec, upstream } of mappings) {
        if (spec.tls === true) {
          yield {
            object,
            severity: 'warning',
            message:
              'the boolean of v2 means TLS without a TLSContext: the gateway sends no certificate and accepts any server as the upstream',
            fix: 'name a TLSContext',
          };
        } else if (spec.tls === 'true' && !upstream.context) {
          yield {
            object,
            message: `Emissary reads "true" as the name of a TLSContext, which does not exist: ${insteadOf(upstream)}`,
            fix: 'name a TLSContext, and write https:// before the service',
          };
        }
      }
    },
  },
  {
    code: 'MC1306',
    severity: 'note',
    title: 'Whether a rotation interrupts requests was not seen with the endpoints of a ConsulResolver',
    *run({ mappings, env }) {
      if (env.edsBypass) return;
      for (const { object, upstream } of withTls(mappings)) {
        if (upstream.resolver !== 'consul') continue;
        yield {
          object,
          message:
            'its endpoints come from a ConsulResolver. Users of older releases saw 503 while Envoy warmed the changed cluster; with the endpoints of Kubernetes no request failed in our runs, and a ConsulResolver was not run',
          fix: 'watch one rotation; if requests fail, set AMBASSADOR_EDS_BYPASS=true on the gateway',
        };
      }
    },
  },
  {
    code: 'MC1307',
    severity: 'note',
    title: 'The gateway accepts any workload of the mesh as the upstream',
    *run({ mappings, contexts }) {
      const [first] = contexts.filter(({ used, reading }) => used && reading.usable && reading.ca);
      const count = mappings.filter(({ upstream }) => upstream.mode === 'mtls').length;
      if (!first || count === 0) return;
      yield {
        object: first.object,
        message: `Emissary configures Envoy to verify the chain of the upstream and not its name: ${count} Mapping${count === 1 ? '' : 's'} would accept any workload of the mesh`,
        fix: 'Emissary has no setting for this; if you need the check, use a gateway that compares URI names (Gateway API BackendTLSPolicy)',
      };
    },
  },
  {
    code: 'MC1308',
    severity: 'error',
    title: 'Emissary drops the Mapping',
    *run(world) {
      for (const { object, spec, upstream } of withTls(world.mappings)) {
        const { dropped, resolver } = upstream;
        if (dropped === undefined || (spec.resolver === undefined && !world.known('Module'))) continue;
        if (resolver === 'unknown' && !knowsResolvers(world)) continue;
        yield {
          object,
          message: `${dropped}: the Mapping has no route, and only the diagnostics of Emissary show it`,
          fix: fixOf(resolver),
        };
      }
    },
  },
];
