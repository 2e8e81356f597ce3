import type { RouteKeeperOptions, RouteKeeping } from './mappings-contract.ts';
import { RouteKeeper } from './mappings-keeper.ts';

export type { RouteKeeperOptions, RouteKeeping } from './mappings-contract.ts';

export function keepRoutes(options: RouteKeeperOptions): RouteKeeping {
  return new RouteKeeper(options);
}
