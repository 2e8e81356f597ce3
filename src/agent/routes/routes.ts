import type { RouteKeeperOptions, RouteKeeping } from './contract.ts';
import { RouteKeeper } from './keeper.ts';

export type { RouteKeeperOptions, RouteKeeping } from './contract.ts';

export function keepRoutes(options: RouteKeeperOptions): RouteKeeping {
  return new RouteKeeper(options);
}
