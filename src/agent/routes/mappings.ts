import type { MappingKeeperOptions, MappingKeeping } from './mappings-contract.ts';
import { MappingKeeper } from './mappings-keeper.ts';

export type { MappingKeeperOptions, MappingKeeping, MappingState } from './mappings-contract.ts';

export function keepMappings(options: MappingKeeperOptions): MappingKeeping {
  return new MappingKeeper(options);
}
