import { z } from 'zod';
import type { Adapter } from '../../src/mesh/adapter.ts';
import { durationSchema } from '../../src/mesh/schema.ts';

const unopened = () => {
  throw new Error('a toy mesh is never opened');
};

const toy = (mesh: string, config: Adapter['config']): Adapter => ({
  mesh,
  title: mesh,
  config,
  tls: {},
  expect: () => ({ form: 'spiffe' }),
  needs: () => [],
  open: unopened,
});

/** One adapter whose configuration is a zod schema, and one that only has a `parse`. */
export const toyMeshes: readonly Adapter[] = [
  toy('istio', z.strictObject({ address: z.string(), ttl: durationSchema({ min: '1m' }).prefault('24h') })),
  toy('consul', {
    parse(input) {
      if ((input as { fail?: boolean }).fail) throw new Error('consul refuses this');
      return input;
    },
  }),
];
