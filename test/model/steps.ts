import fc from 'fast-check';
import { FOREIGN_EDITS, type ForeignEdit } from './foreign.ts';
import { BAD_PUSHES, type BadPush } from './mesh.ts';
import type { Fault, ReplicaName, World, WorldOptions } from './world.ts';

/** One thing that happens. */
export type Step =
  | { readonly do: 'nothing' }
  | { readonly do: 'look'; readonly fresh: boolean }
  | { readonly do: 'deliver'; readonly how: 'next' | 'all' | 'stale' }
  | { readonly do: 'advance' | 'suspend'; readonly minutes: number }
  | {
      readonly do:
        | 'rotate leaf'
        | 'rotate intermediate'
        | 'prepare root'
        | 'prepare brief root'
        | 'renew root'
        | 'roll back'
        | 'roll back and forget'
        | 'drop roots';
    }
  | { readonly do: 'activate root'; readonly fresh: boolean; readonly leafFirst: boolean; readonly crossed: boolean }
  | { readonly do: 'push bad'; readonly how: BadPush }
  | { readonly do: 'renew upstream' | 'teach upstream'; readonly at: number }
  | { readonly do: 'probe' | 'crash' }
  | { readonly do: 'elect'; readonly who: ReplicaName }
  | { readonly do: 'fault'; readonly what: Fault }
  | { readonly do: 'foreign'; readonly edit: ForeignEdit }
  | { readonly do: 'mesh' | 'api'; readonly down: boolean }
  | { readonly do: 'skew'; readonly seconds: number };

const always = <T extends Step['do']>(...names: T[]) => fc.constantFrom(...names.map((name) => ({ do: name }) as Step));
const step = <T extends Step>(
  name: T['do'],
  rest: { [K in keyof Omit<T, 'do'>]: fc.Arbitrary<T[K]> },
): fc.Arbitrary<Step> => fc.record({ do: fc.constant(name), ...rest }) as fc.Arbitrary<Step>;

const minutes = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 3 }) },
  { weight: 3, arbitrary: fc.integer({ min: 5, max: 20 }) },
  { weight: 1, arbitrary: fc.constantFrom(33, 45, 70, 150) },
);

/** The first is what a step shrinks to. */
export const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { withCrossShrink: true },
  { weight: 1, arbitrary: always('nothing') },
  {
    weight: 24,
    arbitrary: step<Extract<Step, { do: 'look' }>>('look', {
      fresh: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, fc.constant(false)),
    }),
  },
  {
    weight: 14,
    arbitrary: step<Extract<Step, { do: 'deliver' }>>('deliver', {
      how: fc.constantFrom('all', 'next', 'next', 'stale'),
    }),
  },
  { weight: 12, arbitrary: step<Extract<Step, { do: 'advance' | 'suspend' }>>('advance', { minutes }) },
  { weight: 1, arbitrary: step<Extract<Step, { do: 'advance' | 'suspend' }>>('suspend', { minutes }) },
  { weight: 8, arbitrary: always('rotate leaf') },
  { weight: 2, arbitrary: always('rotate intermediate', 'renew root', 'roll back', 'roll back and forget') },
  { weight: 4, arbitrary: always('prepare root', 'prepare root', 'prepare brief root') },
  {
    weight: 5,
    arbitrary: step<Extract<Step, { do: 'activate root' }>>('activate root', {
      fresh: fc.boolean(),
      leafFirst: fc.boolean(),
      crossed: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: always('drop roots') },
  {
    weight: 3,
    arbitrary: step<Extract<Step, { do: 'push bad' }>>('push bad', { how: fc.constantFrom(...BAD_PUSHES) }),
  },
  { weight: 3, arbitrary: step<Extract<Step, { at: number }>>('renew upstream', { at: fc.nat(2) }) },
  { weight: 3, arbitrary: step<Extract<Step, { at: number }>>('teach upstream', { at: fc.nat(2) }) },
  { weight: 3, arbitrary: always('probe') },
  { weight: 2, arbitrary: always('crash') },
  { weight: 6, arbitrary: step<Extract<Step, { do: 'elect' }>>('elect', { who: fc.constantFrom('a', 'b') }) },
  {
    weight: 5,
    arbitrary: step<Extract<Step, { do: 'fault' }>>('fault', {
      what: fc.constantFrom(
        'refused',
        'lost',
        'conflict',
        'crash before',
        'crash after',
        'takeover',
        'takeover',
        'foreign',
      ),
    }),
  },
  {
    weight: 3,
    arbitrary: step<Extract<Step, { do: 'foreign' }>>('foreign', { edit: fc.constantFrom(...FOREIGN_EDITS) }),
  },
  { weight: 3, arbitrary: step<Extract<Step, { do: 'mesh' | 'api' }>>('mesh', { down: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: step<Extract<Step, { do: 'mesh' | 'api' }>>('api', {
      down: fc.oneof(fc.constant(false), fc.constant(false), fc.constant(true)),
    }),
  },
  {
    weight: 1,
    arbitrary: step<Extract<Step, { do: 'skew' }>>('skew', { seconds: fc.integer({ min: -120, max: 120 }) }),
  },
);

export const anyWorld: fc.Arbitrary<Omit<WorldOptions, 'keys'>> = fc.record({
  retainMs: fc.constantFrom(0, 70 * 60_000, 120 * 60_000),
  holdMs: fc.constantFrom(600_000, 600_000, 0),
  probe: fc.boolean(),
  upstreams: fc.integer({ min: 1, max: 3 }),
  named: fc.boolean(),
  squatted: fc.oneof({ weight: 7, arbitrary: fc.constant(false) }, fc.constant(true)),
});

export async function take(world: World, what: Step): Promise<void> {
  const { mesh } = world;
  switch (what.do) {
    case 'nothing':
      return;
    case 'look':
      await world.look(what.fresh);
      return;
    case 'deliver':
      return world.deliver(what.how);
    case 'advance':
      return world.advance(what.minutes * 60_000);
    case 'suspend':
      return world.suspend(what.minutes * 60_000);
    case 'rotate leaf':
      return mesh.rotateLeaves();
    case 'rotate intermediate':
      return mesh.rotateIntermediate();
    case 'prepare root':
      return mesh.prepareRoot();
    case 'prepare brief root':
      return mesh.prepareRoot(90 * 60_000);
    case 'renew root':
      return mesh.renewRoot();
    case 'roll back':
      return mesh.rollBack(false);
    case 'roll back and forget':
      return mesh.rollBack(true);
    case 'drop roots':
      return mesh.dropRoots();
    case 'activate root':
      return mesh.activateRoot(what);
    case 'push bad':
      mesh.pushBad(what.how);
      return world.deliver('bad');
    case 'renew upstream': {
      const upstream = mesh.upstreams[what.at];
      if (upstream) mesh.renewUpstream(upstream);
      return;
    }
    case 'teach upstream': {
      const upstream = mesh.upstreams[what.at];
      if (upstream) mesh.teach(upstream);
      return;
    }
    case 'probe':
      return world.probe();
    case 'crash':
      return world.crash();
    case 'elect':
      return world.elect(what.who);
    case 'fault':
      return world.fault(what.what);
    case 'foreign':
      return world.foreign(what.edit);
    case 'mesh':
      world.meshDown = what.down;
      return;
    case 'api':
      world.apiDown = what.down;
      return;
    case 'skew':
      return world.skew(what.seconds * 1000);
  }
}
