import { consentRefusal } from '../../../core/consent.ts';
import type { KubeObject } from '../../../core/object.ts';
import { fields, hasLabels, text } from '../../../mesh/kube-object.ts';
import type { TargetRefusal } from '../../../mesh/targeting.ts';
import type { RouteDestination } from '../../gateway.ts';
import type { RouteInput } from '../../input.ts';
import type { GatewayApiConfig } from '../spec/config.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { PolicyTarget } from '../spec/target.ts';
import { aliasRefusal, dialledPort, type NamedPort, namedPorts, peersOf } from './pods.ts';
import {
  behindServices,
  destinationOf,
  foreignPolicy,
  kept,
  type PolicyJudgement,
  type PolicySituation,
  policyVerdict,
  unseen,
  unservedKind,
  writtenFor,
} from './policies.ts';

type ServiceInput = RouteInput<GatewayApiConfig>;

interface ServiceSituation extends PolicySituation {
  /** Why no policy may be written for any Service. */
  readonly obstacle: TargetRefusal | undefined;
  /** The Gateways present the certificate. */
  readonly mayAdd: boolean;
}

export const isService = ({ kind }: KubeObject): boolean => kind === CORE_RESOURCES.services.kind;

/**
 * The policies that the selected Services need. One that exists stays while its Service is selected or a route uses
 * it: without it, the gateway would send plaintext. A further one waits until the Gateways present the certificate.
 */
export function judgeServices(situation: PolicySituation, mayAdd: boolean): readonly PolicyJudgement[] {
  const { input, observed } = situation;
  const whole: ServiceSituation = { ...situation, obstacle: obstacle(input, observed), mayAdd };
  return observed.routes.filter(isService).flatMap((service) => judgeService(service, whole));
}

function obstacle(
  { mesh }: ServiceInput,
  { unserved, behind }: PolicySituation['observed'],
): TargetRefusal | undefined {
  const absent = unservedKind(unserved);
  if (absent) return absent;
  const taker = behind(KINDS.classes.kind).find(({ spec }) =>
    mesh?.takesPoliciesOf?.(text(fields(spec).controllerName) ?? ''),
  );
  if (!taker) return undefined;
  const message = `the control plane of ${mesh?.title} watches the Gateway API (GatewayClass ${taker.metadata.name}), and would apply a BackendTLSPolicy on a Service to all sidecars, which then connect without their certificate; create a Backend of Envoy Gateway that leads to the Service, and select that`;
  return { code: 'ERR_TARGET_MESH_POLICY', message };
}

function judgeService(service: KubeObject, situation: ServiceSituation): readonly PolicyJudgement[] {
  const { input, written, isUsed } = situation;
  const { config, meta } = input;
  const { name, namespace = '' } = service.metadata;
  const target = (port: string) => ({ of: 'Service', namespace, name, port }) as const;
  const ports = namedPorts(service);
  const numberOf = (port: string) => ports.find((one) => one.name === port)?.port;
  const own = [...written.values()].filter(
    (one) => one.of === 'Service' && one.namespace === namespace && one.name === name,
  );
  const still = (targets: readonly PolicyTarget[]) =>
    targets
      .filter((one) => isUsed(one, numberOf(one.port)))
      .map((one) => kept(service, one, numberOf(one.port), situation));
  if (!config.services || !hasLabels(service, config.services.selector.matchLabels)) return still(own);
  const listed = config.services.ports;
  const wanted = listed ? ports.filter((one) => listed.includes(one.name)) : ports;
  const whole = wholeRefusal(service, wanted, meta.namespace) ?? situation.obstacle;
  if (whole) {
    const verdict = (port: string) => policyVerdict(service, target(port), numberOf(port), situation, whole);
    const left = own.map((one) => ({ verdict: verdict(one.port), target: one }));
    return left.length > 0 ? left : [{ verdict: verdict('') }];
  }
  return [
    ...wanted.map((port) => judgePort(service, port, situation)),
    ...still(own.filter(({ port }) => !wanted.some((one) => one.name === port))),
  ];
}

/** Why nothing is written for any port of a Service. */
function wholeRefusal(service: KubeObject, wanted: readonly NamedPort[], namespace: string): TargetRefusal | undefined {
  const refusal = consentRefusal(service, namespace) ?? aliasRefusal(service, 'it');
  if (refusal || wanted.length > 0) return refusal;
  const names = namedPorts(service).map((port) => port.name);
  const known = names.length === 0 ? 'none of its ports has a name' : `its ports are ${names.join(', ')}`;
  const message = `a BackendTLSPolicy needs the name of a port, and ${known}; name the port, or correct gatewayApi.services.ports`;
  return { code: 'ERR_TARGET_PORT_NAME', message };
}

function judgePort(service: KubeObject, port: NamedPort, situation: ServiceSituation): PolicyJudgement {
  const { name, namespace = '' } = service.metadata;
  const target = { of: 'Service', namespace, name, port: port.name } as const;
  const before = writtenFor(situation, target);
  const behind = behindServices(situation, namespace);
  const peers =
    unseen(situation, namespace, [KINDS.policies, CORE_RESOURCES.pods, CORE_RESOURCES.endpointSlices]) ??
    foreignPolicy(situation, target) ??
    peersOf(service, port, behind, situation.input);
  const verdict = (found: TargetRefusal | readonly RouteDestination[]) =>
    policyVerdict(service, target, port.port, situation, found);
  if ('code' in peers) return { verdict: verdict(peers), target: before };
  const address = `${name}.${namespace}:${dialledPort(service, port, behind)}`;
  return {
    verdict: verdict([destinationOf(address, peers, { namespace, name })]),
    target: before || situation.mayAdd ? { kind: 'policy', ...target, ...peers } : undefined,
  };
}
