import type { GatewayUse, RouteState } from '../../gateway/gateway.ts';
import type { RouteKeeping } from '../routes/mappings-contract.ts';
import type { Retiring } from './orphans.ts';

/** A gateway that one MeshCertificate uses, and who keeps its routes and its objects in order. */
export interface UsedGateway extends Pick<GatewayUse, 'gateway' | 'config'> {
  readonly routes: RouteKeeping;
  readonly retiring: Retiring;
}

/** What the publication has to serve now. */
export const usesOf = (used: readonly UsedGateway[]): readonly GatewayUse[] =>
  used.map(({ gateway, config, routes }) => ({ gateway, config, targets: routes.targets() }));

/** The routes of one gateway, for whoever reports. */
export interface ReportedRoutes extends GatewayUse {
  readonly states: readonly RouteState[];
}

export const reportedRoutes = (used: readonly UsedGateway[]): readonly ReportedRoutes[] =>
  used.map(({ gateway, config, routes }) => ({
    ...{ gateway, config, targets: routes.targets() },
    states: routes.states(),
  }));
