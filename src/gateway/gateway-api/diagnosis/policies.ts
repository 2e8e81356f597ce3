import { describe, OWNER_LABEL, refOf } from '../../../core/object.ts';
import { fields, hasLabels, type KubeObject, listOfFields, text } from '../../../mesh/kube-object.ts';
import { findPath } from '../../../pki/chain.ts';
import { parsedValue } from '../../pair.ts';
import { controllerOf } from '../routes/client.ts';
import { namedPorts } from '../routes/pods.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import { rootsOf } from './bundles.ts';
import type { GatewayApiCheck } from './check.ts';
import { type GatewayApiWorld, nameOf, type PolicyReference, type SeenPolicy } from './world.ts';

const PLAINTEXT = 'requests go to it in plaintext, and no status says so';

/** The targets of all policies, with the policy that names them; of one target, the policy that counts comes first. */
function* targetsOf({ policies }: GatewayApiWorld): Generator<{ policy: SeenPolicy; target: PolicyReference }> {
  for (const policy of policies) for (const target of policy.targets) yield { policy, target };
}

const isService = ({ kind }: PolicyReference): boolean => kind === CORE_RESOURCES.services.kind;
const titleOf = (target: PolicyReference): string =>
  `${target.section === undefined ? '' : `port ${target.section} of `}${target.kind} ${nameOf(target)}`;

export const policyChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC1501',
    severity: 'error',
    title: 'A BackendTLSPolicy matches no port',
    *run(world) {
      for (const { policy, target } of targetsOf(world)) {
        if (!isService(target) || !world.known(target.kind)) continue;
        const service = world.find(target.kind, target);
        if (
          service &&
          (target.section === undefined || namedPorts(service).some(({ name }) => name === target.section))
        )
          continue;
        const names = service ? namedPorts(service).map(({ name }) => name) : [];
        const why = !service
          ? 'which does not exist'
          : names.length === 0
            ? 'whose ports have no names'
            : `whose ports are ${names.join(', ')}`;
        yield {
          object: policy.object,
          message: `its target is ${titleOf(target)}, ${why}: ${service ? PLAINTEXT : 'a Service that is created later under another name gets plaintext'}`,
          fix: 'write the name of a port, not its number, as sectionName; name the port in the Service',
        };
      }
    },
  },
  {
    code: 'MC1502',
    severity: 'error',
    title: 'Two BackendTLSPolicies have the same target',
    *run(world) {
      const first = new Map<string, SeenPolicy>();
      for (const { policy, target } of targetsOf(world)) {
        const key = JSON.stringify(target);
        const before = first.get(key);
        if (!before) first.set(key, policy);
        else if (before !== policy)
          yield {
            object: policy.object,
            message: `${describe(refOf(before.object))} is for ${titleOf(target)} too: the older one counts, and this one is refused (Conflicted)`,
            fix: 'delete one of them; first move what only this one requires into the other',
          };
      }
    },
  },
  {
    code: 'MC1503',
    severity: 'warning',
    title: 'A BackendTLSPolicy for a whole Service does not count for one of its ports',
    *run(world) {
      for (const { policy, target } of targetsOf(world)) {
        if (target.section === undefined) continue;
        const whole = { ...target, section: undefined };
        for (const other of world.policies) {
          if (other === policy || !other.targets.some((one) => JSON.stringify(one) === JSON.stringify(whole))) continue;
          yield {
            object: other.object,
            message: `it is for all of ${titleOf(whole)}, but ${describe(refOf(policy.object))} counts for port ${target.section}: there, this one has no effect, and no status says so`,
            fix: 'name the ports that it is for as sectionName',
          };
        }
      }
    },
  },
  {
    code: 'MC1504',
    severity: 'error',
    title: 'A BackendTLSPolicy for a mesh without DNS names has no subjectAltNames',
    *run(world) {
      const { now } = world.snapshot;
      const found = new Set<SeenPolicy>();
      for (const { policy, gateways } of world.backends) {
        if (!policy || policy.names.length > 0 || found.has(policy)) continue;
        const roots = policy.bundles.flatMap((bundle) => rootsOf(world, bundle) ?? []);
        const isOfMesh = gateways.some(({ client }) => {
          const [leaf, ...others] = (client && parsedValue(world.pairOf(client.secret)?.chain)) ?? [];
          if (!leaf || leaf.names.dns.length > 0 || leaf.names.uris.length === 0) return false;
          return findPath(leaf, others, roots, now).ok;
        });
        if (!isOfMesh) continue;
        found.add(policy);
        yield {
          object: policy.object,
          message: `without subjectAltNames, the certificate of the upstream must have the DNS name ${policy.hostname}; those of this mesh have SPIFFE IDs alone, so every request ends with 503`,
          fix: 'add subjectAltNames of type URI with the SPIFFE IDs of the workloads',
        };
      }
    },
  },
  {
    code: 'MC1505',
    severity: 'error',
    title: 'The mesh applies a BackendTLSPolicy to its own sidecars',
    *run(world) {
      const { adapters } = world.snapshot;
      for (const adapter of adapters) {
        const taker = world
          .all(KINDS.classes.kind)
          .find(({ spec }) => adapter.takesPoliciesOf?.(text(fields(spec).controllerName) ?? ''));
        if (!taker) continue;
        for (const { policy, target } of targetsOf(world)) {
          const service = isService(target) ? world.find(target.kind, target) : undefined;
          const member = service && podsBehind(world, service).find((pod) => isMember(world, adapter.pods, pod));
          if (!member) continue;
          yield {
            object: policy.object,
            message: `${adapter.title} watches the Gateway API (GatewayClass ${taker.metadata.name}), and Pod ${member.metadata.name} of ${titleOf(target)} is in the mesh: sidecars that call the Service connect without their certificate, and a server that requires mTLS refuses them`,
            fix: 'make the target a Backend, or end the watch; docs/gateway-api.md shows how',
          };
        }
      }
    },
  },
  {
    code: 'MC1506',
    severity: 'error',
    title: 'The controller of a Gateway refuses a BackendTLSPolicy',
    *run({ policies, gateways, all }) {
      const controllers = new Set(gateways.flatMap(({ object }) => controllerOf(object, { behind: all }) ?? []));
      for (const { object } of policies) {
        for (const { ancestorRef, controllerName, conditions } of listOfFields(fields(object.status).ancestors)) {
          if (!controllers.has(String(controllerName))) continue;
          for (const { type, status, reason, message, observedGeneration } of listOfFields(conditions)) {
            const isOld = Number(observedGeneration ?? 0) < (object.metadata.generation ?? 0);
            if (status !== 'False' || isOld || reason === 'Conflicted') continue;
            yield {
              object,
              message: `${type} is False for Gateway ${String(fields(ancestorRef).name)}, ${String(reason)}: ${String(message)}`,
              fix: 'correct what the message names; until then, requests end with 500 or 503',
            };
          }
        }
      }
    },
  },
];

function podsBehind({ all }: GatewayApiWorld, service: KubeObject): readonly KubeObject[] {
  const labels = fields(fields(service.spec).selector);
  if (Object.keys(labels).length === 0) return [];
  return all(CORE_RESOURCES.pods.kind).filter(
    (pod) => pod.metadata.namespace === service.metadata.namespace && hasLabels(pod, labels),
  );
}

function isMember(
  { all }: GatewayApiWorld,
  pods: GatewayApiWorld['snapshot']['adapters'][number]['pods'],
  pod: KubeObject,
): boolean {
  const namespace = all('Namespace').find(({ metadata }) => metadata.name === pod.metadata.namespace);
  return pods?.membership(pod, namespace) !== undefined;
}

/** Whether the agent wrote it. */
export const isOurs = ({ object }: SeenPolicy): boolean => object.metadata.labels?.[OWNER_LABEL] !== undefined;
