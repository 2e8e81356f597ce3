import { ROOT_TIMES_ANNOTATION } from '../../src/core/trust.ts';
import { type KubeObject, type ObjectRef, OWNER_LABEL } from '../../src/objects/objects.ts';
import type { PrivateKey } from '../../src/pki/key.ts';
import type { ModelCluster } from './kube.ts';
import { bundleOf } from './ledger.ts';
import { OWNER } from './replica.ts';

interface Objects {
  readonly ca: ObjectRef;
  readonly pair: ObjectRef;
  readonly context: ObjectRef;
}

type Patch = (object: KubeObject, key: () => PrivateKey) => object;

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const GARBAGE = base64('garbage');

/** Merge patches of a user with kubectl; the first names the object. */
const PATCHES = {
  'garble pair': ['pair', () => ({ data: { 'tls.crt': GARBAGE } })],
  'swap key': ['pair', (_, key) => ({ data: { 'tls.key': base64(key().toPem()) } })],
  'garble bundle': ['ca', () => ({ data: { 'tls.crt': GARBAGE } })],
  'lose a root': ['ca', (object) => ({ data: { 'tls.crt': base64(withoutFirst(object) || 'none') } })],
  'lose times': ['ca', () => ({ metadata: { annotations: null } })],
  'odd times': ['ca', (object) => ({ metadata: { annotations: { [ROOT_TIMES_ANNOTATION]: farAhead(object) } } })],
  'own annotation': ['pair', () => ({ metadata: { annotations: { team: 'gateway' } } })],
  'strip label': ['pair', () => ({ metadata: { labels: { [OWNER_LABEL]: null } } })],
  'edit context': ['context', () => ({ spec: { ca_secret: 'other', sni: 'x' } })],
} as const satisfies Record<string, readonly [keyof Objects, Patch]>;

const DELETIONS = { 'delete pair': 'pair', 'delete bundle': 'ca', 'delete context': 'context' } as const;

export type ForeignEdit = keyof typeof PATCHES | keyof typeof DELETIONS | 'squat';
export const FOREIGN_EDITS: readonly ForeignEdit[] = [
  ...(Object.keys(PATCHES) as (keyof typeof PATCHES)[]),
  ...(Object.keys(DELETIONS) as (keyof typeof DELETIONS)[]),
  'squat',
];

const KUBECTL = { fieldManager: 'kubectl' };

/** Does to a publication what a third party might, if there is anything to do it to. */
export function meddle(
  cluster: ModelCluster,
  [ca, pair, context]: readonly ObjectRef[],
  edit: ForeignEdit,
  key: () => PrivateKey,
): void {
  if (!ca || !pair || !context) throw new TypeError('a publication has three objects');
  const objects: Objects = { ca, pair, context };
  if (edit === 'squat') {
    if (!cluster.get(pair)) cluster.write('human', 'create', pair, squatter(pair), KUBECTL);
    return;
  }
  const deleted = edit in DELETIONS ? objects[DELETIONS[edit as keyof typeof DELETIONS]] : undefined;
  if (deleted) {
    if (cluster.get(deleted)) cluster.write('human', 'delete', deleted, {}, KUBECTL);
    return;
  }
  const [name, patch]: readonly [keyof Objects, Patch] = PATCHES[edit as keyof typeof PATCHES];
  const object = cluster.get(objects[name]);
  if (object) cluster.write('human', 'merge', objects[name], patch(object, key), KUBECTL);
}

/** Carries our label, as a copy of one of our Secrets would, and not our field manager. */
function squatter({ namespace, name }: ObjectRef): object {
  const metadata = { namespace, name, labels: { [OWNER_LABEL]: OWNER } };
  const data = { 'tls.crt': GARBAGE, 'tls.key': GARBAGE };
  return { apiVersion: 'v1', kind: 'Secret', metadata, type: 'kubernetes.io/tls', data };
}

function withoutFirst(secret: KubeObject): string {
  return bundleOf(secret)
    .slice(1)
    .map(({ pem }) => pem)
    .join('');
}

function farAhead(secret: KubeObject): string {
  const [root] = bundleOf(secret);
  return root ? `-${root.fingerprint.slice(0, 16)}=2099-01-01T00:00:00Z` : 'x';
}
