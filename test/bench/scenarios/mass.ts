import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { type KubeObject, RENEW_ANNOTATION } from '../../../src/objects/objects.ts';
import type { World } from '../fleets.ts';
import { BUNDLE_AGENT, cpuOf, startBundle } from '../parts/bundle.ts';
import { type Context, type Count, type Row, row, type Scenario } from '../scenario.ts';
import { inLanes } from '../statistics.ts';
import { isIdentitySecret, isReady, observing, type Reached, untilAll } from './first.ts';

/** Requests of the client that annotates, at once. */
const ANNOTATORS = 16;

export const mass: Scenario = {
  id: 'mass',
  title: 'Everything changes at once: roots, and renewals by annotation',
  same: 'The shipped bundle with N publications that are current. First the mesh names one more root, so that the bundle of each publication grows. Then another client sets the annotation meshcert.dev/renew on each MeshCertificate. Another process watches the API server: to the last Secret that changed, and to the last status about it. At last the same annotation is set once more, and the API server is killed at once and comes back later: from its return to the last Secret and status. There is no comparison except the counts.',
  async run(context) {
    const world = await context.fleets.best;
    const { due: count } = context.sizes;
    const namespace = `mass-${count}`;
    context.say(`${count} publications`);
    await world.populate(namespace, count);
    const ready = untilAll(world, namespace, count, { isPublished: isIdentitySecret, isReady });
    await using bundle = await startBundle(world.kubeconfigFile, [
      ...['-n', namespace, '--no-leader-elect', ...observing('labels')],
    ]);
    await ready;
    const about = `${world.kind}: ${count}`;
    const roots = await change(context, world, bundle.pid, namespace, count, `${about} bundles with a new root`, {
      act: () => world.nameRoots(namespace, [world.caInfo.rootPem, SandboxCa.root({ name: 'next' }).root.pem]),
      isPublished: (secret) => secret.metadata.name.endsWith('-ca') && rootsIn(secret) === 2,
      isReady: ({ status }) => ((status as { roots?: readonly unknown[] } | undefined)?.roots ?? []).length === 2,
    });
    const renewal = async (what: string, awayMs: number) => {
      const { items } = await world.kube.list(RESOURCES.secrets, { namespace });
      const versions = new Map(items.map(({ metadata }) => [metadata.name, metadata.resourceVersion]));
      const value = new Date().toISOString();
      return await change(context, world, bundle.pid, namespace, count, `${about} ${what}`, {
        awayMs,
        act: () => annotate(world, namespace, count, value),
        isPublished: (secret) =>
          isIdentitySecret(secret) && versions.get(secret.metadata.name) !== secret.metadata.resourceVersion,
        isReady: hasRenewed(value),
      });
    };
    const renewals = await renewal('renewals by annotation', 0);
    const { awayMs } = context.sizes;
    const returned = await renewal(`renewals, API server away for ${awayMs / 1000} s`, awayMs);
    return {
      rows: [...roots.rows, ...renewals.rows, ...returned.rows],
      // How many requests failed depends on the moment of the outage.
      counts: [...roots.counts, ...renewals.counts],
      notes: [],
    };
  },
};

function rootsIn({ data }: KubeObject): number {
  const { 'tls.crt': bundle = '' } = (data ?? {}) as Readonly<Record<string, string>>;
  return Buffer.from(bundle, 'base64').toString().split('BEGIN CERTIFICATE').length - 1;
}

async function change(
  { say }: Context,
  world: World,
  pid: number,
  namespace: string,
  count: number,
  about: string,
  { act, awayMs = 0, ...reached }: Reached & { readonly act: () => Promise<void>; readonly awayMs?: number },
): Promise<{ readonly rows: readonly Row[]; readonly counts: readonly Count[] }> {
  say(about);
  await world.spent(BUNDLE_AGENT);
  const cpuBefore = await cpuOf(pid);
  const observe = () => ({ began: performance.now(), all: untilAll(world, namespace, count, reached) });
  const early = awayMs > 0 ? undefined : observe();
  await act();
  if (awayMs > 0) await world.outage(awayMs);
  const { began, all } = early ?? observe();
  const { secretsAt, readyAt } = await all;
  const cpuMs = (await cpuOf(pid)) - cpuBefore;
  const { 'create events': _, 'patch events': __, ...spent } = await world.spent(BUNDLE_AGENT);
  const requests = Object.values(spent).reduce((sum, each) => sum + each, 0);
  return {
    rows: [
      row(`${about}, to the last Secret`, 's', [(secretsAt - began) / 1000]),
      row(`${about}, to the last status`, 's', [(readyAt - began) / 1000]),
      row(`${about}: CPU of the agent each`, 'ms', [cpuMs / count]),
    ],
    counts: [{ what: `${about}: API requests each, without Events`, value: requests / count, limit: undefined }],
  };
}

/** Whether the status says that the renewal was done that this value of the annotation asked for. */
export const hasRenewed =
  (value: string) =>
  ({ status }: KubeObject): boolean =>
    (status as { renewRequest?: string } | undefined)?.renewRequest === value;

export async function annotate(world: World, namespace: string, count: number, value: string): Promise<void> {
  await inLanes(ANNOTATORS, count, (at) => {
    const ref = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', namespace, name: `gw-${at}` };
    const change = { metadata: { annotations: { [RENEW_ANNOTATION]: value } } };
    return world.kube.merge(ref, change, { fieldManager: 'bench' });
  });
}
