import type { StatusInput } from '../../core/decision/status-of.ts';
import type { RouteStatus } from '../../core/status.ts';
import type { GatewayUse, RouteState } from '../../gateway/gateway.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import type { RouteKeeping } from '../routes/contract.ts';
import type { Retiring } from './orphans.ts';

/** A gateway that one MeshCertificate uses, with the components that maintain its routes and its objects. */
export interface UsedGateway extends Pick<GatewayUse, 'gateway' | 'config'> {
  readonly routes: RouteKeeping;
  readonly retiring: Retiring;
}

/** What the publication has to serve now. */
export const usesOf = (used: readonly UsedGateway[]): readonly GatewayUse[] =>
  used.map(({ gateway, config, routes }) => ({ gateway, config, targets: routes.targets() }));

/** What the status says of the routes of all gateways. */
export function reportOf(used: readonly UsedGateway[]): Pick<StatusInput, 'routes' | 'targets' | 'referenced'> {
  const all = used.map(({ gateway, routes }) => ({
    gateway,
    states: routes.states(),
    targets: routes.targets() ?? [],
  }));
  return {
    routes: all.flatMap(({ states }) => states.map(routeStatus)),
    targets: all.flatMap(({ gateway, targets }) =>
      gateway.routes.identities(targets).map(({ id, object }) => ({ id, context: object })),
    ),
    referenced: all.map(({ gateway, states }) =>
      gateway.wording.referenced(
        states,
        states.filter(({ code }) => code !== undefined),
      ),
    ),
  };
}

function routeStatus({ name, namespace, kind, state, code, object, message }: RouteState): RouteStatus {
  return {
    ...{ name, namespace, kind },
    state: code ?? (state === 'waiting' ? 'waiting' : 'ok'),
    ...(object === undefined ? {} : { context: object }),
    ...(message === undefined ? {} : { message: safeMessage(message) }),
  };
}
