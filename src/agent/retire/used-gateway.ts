import type { GatewayUse } from '../../gateway/gateway.ts';
import type { RouteKeeping } from '../routes/contract.ts';
import type { Retiring } from './orphans.ts';

/** A gateway that one MeshCertificate uses, with the components that maintain its routes and its objects. */
export interface UsedGateway extends Pick<GatewayUse, 'gateway' | 'config'> {
  readonly routes: RouteKeeping;
  readonly retiring: Retiring;
  /** An earlier spec used it; now it only retires what is left. */
  readonly isLeft: boolean;
}

/** What the publication has to serve now. */
export const usesOf = (used: readonly UsedGateway[]): readonly GatewayUse[] =>
  used.map(({ gateway, config, routes }) => ({ gateway, config, targets: routes.targets() }));
