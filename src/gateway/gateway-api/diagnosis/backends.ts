import { describe, refOf } from '../../../core/object.ts';
import { isGranted } from '../routes/client.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { GatewayApiCheck } from './check.ts';
import { nameOf } from './world.ts';

const SERVICE = CORE_RESOURCES.services.kind;

export const backendChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC1801',
    severity: 'error',
    title: 'No ReferenceGrant lets a route use a Service of another namespace',
    *run(world) {
      for (const { route, kind, gateways, ...ref } of world.backends) {
        if (ref.namespace === route.metadata.namespace || gateways.length === 0) continue;
        if (!world.snapshot.whole.has('ReferenceGrant') && !world.find(kind, ref)) continue;
        if (isGranted(world.all(KINDS.grants.kind), route, { kind, ...ref })) continue;
        yield {
          object: route,
          message: `it sends requests to ${kind} ${nameOf(ref)}, and no ReferenceGrant there lets objects of the kind ${route.kind} in namespace ${route.metadata.namespace} use it (RefNotPermitted): they end with 500`,
          fix: `create a ReferenceGrant in namespace ${ref.namespace}, from ${route.kind} to ${kind}`,
        };
      }
    },
  },
  {
    code: 'MC1802',
    severity: 'warning',
    title: 'A route reaches a Service on a port that its BackendTLSPolicy does not cover',
    *run({ backends, policies }) {
      for (const { route, kind, port, policy, gateways, ...ref } of backends) {
        if (policy || kind !== SERVICE || gateways.length === 0) continue;
        const beside = policies.find(({ targets }) =>
          targets.some((one) => one.kind === kind && one.namespace === ref.namespace && one.name === ref.name),
        );
        if (!beside) continue;
        yield {
          object: route,
          message: `it sends requests to port ${port} of Service ${nameOf(ref)} in plaintext: ${describe(refOf(beside.object))} is for another port`,
          fix: 'send them to the port of the policy, or give this port a policy of its own',
        };
      }
    },
  },
];
