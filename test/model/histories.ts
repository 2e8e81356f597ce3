import { BAD_PUSHES } from './mesh.ts';
import type { Step } from './steps.ts';
import type { WorldOptions } from './world.ts';

type History = [Omit<WorldOptions, 'keys'>, Step[]];

const plain = { retainMs: 0, holdMs: 600_000, probe: false, upstreams: 1, named: true, squatted: false };
const look: Step = { do: 'look', fresh: true };
const all: Step = { do: 'deliver', how: 'all' };
const mute: Step = { do: 'push bad', how: 'no roots' };
const wait = (minutes: number): Step => ({ do: 'advance', minutes });
const newRoot = (how: { leafFirst?: boolean; crossed?: boolean } = {}): Step => ({
  do: 'activate root',
  fresh: true,
  leafFirst: how.leafFirst ?? false,
  crossed: how.crossed ?? false,
});

/** Each caused harm once, or nearly: they run before the random ones. */
export const HISTORIES: readonly History[] = [
  ...BAD_PUSHES.map(
    (how): History => [{ ...plain, named: how !== 'other identity' }, [look, { do: 'push bad', how }, look]],
  ),
  // The upstream never learns the root: only the emergency band may override its refusal.
  [{ ...plain, probe: true }, [look, newRoot(), all, look, wait(11), look, wait(20), look]],
  // A root renewed with its key also carried every later leaf, and so never left.
  [plain, [look, { do: 'renew root' }, all, look]],
  // A root that was named, dropped and named again within a minute counted as an old one.
  [
    plain,
    [
      look,
      newRoot({ leafFirst: true }),
      { do: 'drop roots' },
      { do: 'deliver', how: 'stale' },
      look,
      { do: 'deliver', how: 'stale' },
      look,
    ],
  ],
  // A leaf over a young root allowed the next root, although upstreams knew it only by a cross-signature.
  [
    plain,
    [
      newRoot({ crossed: true }),
      look,
      newRoot({ crossed: true }),
      { do: 'rotate leaf' },
      all,
      { do: 'deliver', how: 'stale' },
      look,
    ],
  ],
  // A push without roots made the only old root look new when it was named again.
  [
    plain,
    [
      look,
      newRoot({ crossed: true }),
      { do: 'push bad', how: 'no roots' },
      newRoot({ crossed: true }),
      look,
      all,
      { do: 'deliver', how: 'stale' },
      look,
      all,
      look,
    ],
  ],
  // An old root that flickered looked younger than a young one, which then justified the next.
  [
    plain,
    [
      newRoot({ leafFirst: true, crossed: true }),
      { do: 'rotate leaf' },
      { do: 'drop roots' },
      look,
      all,
      look,
      { do: 'deliver', how: 'stale' },
      newRoot({ crossed: true }),
      all,
      look,
    ],
  ],
  // A mesh that names nothing for an hour has not dropped anything.
  [
    plain,
    [look, { do: 'prepare root' }, all, look, mute, look, wait(33), { do: 'rotate leaf' }, mute, look, wait(33), look],
  ],
  // The mesh signs again with a root that it no longer names: its retention ends while the leaf depends on it.
  [
    plain,
    [
      look,
      newRoot(),
      all,
      look,
      wait(11),
      look,
      { do: 'drop roots' },
      all,
      look,
      wait(33),
      { do: 'roll back and forget' },
      all,
      look,
      wait(31),
      look,
    ],
  ],
  // Somebody removed the published leaf's root from the bundle just when the mesh dropped it.
  [
    plain,
    [
      look,
      { do: 'prepare root' },
      { do: 'roll back' },
      all,
      look,
      { do: 'foreign', edit: 'lose a root' },
      { do: 'drop roots' },
      all,
      look,
    ],
  ],
  // A push without a leaf gave no lifetime of leaves, and retention shrank to nothing.
  [plain, [look, { do: 'renew root' }, all, look, { do: 'push bad', how: 'no chain' }, look]],
  // The upstream had refused the leaf, and then somebody deleted the record of how young its root was.
  [
    { ...plain, probe: true },
    [look, newRoot(), all, look, { do: 'foreign', edit: 'delete bundle' }, { do: 'probe' }, look, wait(11), look],
  ],
  // The root of the published leaf ends before the leaf does, and leaves the bundle.
  [
    { ...plain, named: false },
    [
      { do: 'prepare brief root' },
      { do: 'roll back and forget' },
      look,
      wait(32),
      { do: 'rotate leaf' },
      wait(44),
      all,
      look,
      wait(14),
    ],
  ],
  // A process dies between the two writes of a pair, and nothing else shows which roots stood.
  [
    { ...plain, named: false },
    [
      { do: 'rotate intermediate' },
      { do: 'rotate leaf' },
      look,
      { do: 'fault', what: 'crash after' },
      { do: 'activate root', fresh: false, leafFirst: false, crossed: false },
      { do: 'crash' },
      { do: 'drop roots' },
      { do: 'elect', who: 'a' },
      { do: 'foreign', edit: 'delete pair' },
      look,
      { do: 'foreign', edit: 'garble bundle' },
    ],
  ],
  // Somebody deletes the pair, the agent writes before it knows, and the new leaf must still be held.
  [
    { ...plain, named: false },
    [
      { do: 'activate root', fresh: false, leafFirst: false, crossed: false },
      look,
      { do: 'foreign', edit: 'delete pair' },
      all,
      { do: 'look', fresh: false },
      look,
    ],
  ],
  // A leader is paused in the first of the two requests with which it changes a Secret.
  [
    { ...plain, named: false },
    [
      { do: 'fault', what: 'crash after' },
      { do: 'fault', what: 'takeover' },
      look,
      { do: 'elect', who: 'a' },
      { do: 'foreign', edit: 'odd times' },
      all,
      { do: 'mesh', down: true },
      look,
    ],
  ],
  // A paused leader finishes its write after the next one wrote; then the mesh repeats an old leaf.
  [
    plain,
    [
      look,
      { do: 'rotate leaf' },
      { do: 'fault', what: 'takeover' },
      all,
      look,
      wait(3),
      { do: 'deliver', how: 'stale' },
      look,
    ],
  ],
];
