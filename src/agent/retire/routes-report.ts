import type { StatusInput } from '../../core/decision/status-of.ts';
import type { RouteStatus } from '../../core/status.ts';
import type { RouteState } from '../../gateway/gateway.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import { remains, retirementOf } from './left.ts';
import type { UsedGateway } from './used-gateway.ts';

/** What the status says of the routes of all gateways. */
export function reportOf(used: readonly UsedGateway[]): Pick<StatusInput, 'routes' | 'targets' | 'referenced'> {
  const all = used.map(({ gateway, routes, isLeft }) => ({
    gateway,
    isLeft,
    states: routes.states(),
    targets: routes.targets() ?? [],
  }));
  return {
    routes: all.flatMap(({ states }) => states.map(routeStatus)),
    targets: all.flatMap(({ gateway, targets }) =>
      gateway.routes.identities(targets).map(({ id, object }) => ({ id, context: object })),
    ),
    // What is left comes first: the status of the routes shows the rest.
    referenced: [
      ...used.flatMap((one) => (one.isLeft && remains(one) ? [retirementOf(one)] : [])),
      ...all.flatMap(({ gateway, states, isLeft }) => {
        const refused = states.filter(({ code }) => code !== undefined);
        return isLeft ? [] : [gateway.wording.referenced(states, refused)];
      }),
    ],
  };
}

function routeStatus({ name, namespace, kind, state, code, object, message }: RouteState): RouteStatus {
  return {
    name,
    namespace,
    kind,
    state: code ?? (state === 'waiting' ? 'waiting' : 'ok'),
    ...(object === undefined ? {} : { context: object }),
    ...(message === undefined ? {} : { message: safeMessage(message) }),
  };
}
