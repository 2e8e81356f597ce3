import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { startTcpProxy, type TcpProxy } from '../../peers/parts/tcp-proxy.ts';
import type { World } from '../fleets.ts';
import { type Bundle, startBundle } from '../parts/bundle.ts';
import { type Context, Missing, type Row, row, type Scenario } from '../scenario.ts';
import { isIdentitySecret, isReady, untilAll } from './first.ts';
import { annotate, hasRenewed } from './mass.ts';

/** Time for the first requests of the renewals to be in flight. */
const UNDER_WAY_MS = 200;
const SERVER_AWAY_MS = 5_000;

type Break = (world: World, balancer: TcpProxy) => unknown;

const BREAKS: readonly (readonly [string, Break])[] = [
  ['nothing happens', () => undefined],
  ['connections are cut', (_, balancer) => balancer.cut()],
  ['connections are forgotten, without an end', (_, balancer) => balancer.stall()],
  [`the API server is killed, and back after ${SERVER_AWAY_MS / 1000} s`, (world) => world.outage(SERVER_AWAY_MS)],
];

export const outage: Scenario = {
  id: 'outage',
  title: 'The way to the API server breaks while everything is renewed',
  same: 'The shipped bundle with N publications and --observe names, behind a TCP load balancer. Another client, which connects directly, sets the annotation meshcert.dev/renew on each MeshCertificate, and the way breaks while the renewals are under way. From the annotations to the last Secret and status, beside the same renewals while nothing happens; requests without an answer are from the metrics of the agent. At last the same without a break against an API server that ends one connection in fifty requests by GOAWAY.',
  async run(context) {
    const rows = await broken(context, await context.fleets.best, BREAKS);
    try {
      await using world = await context.fleets.apart(['--goaway-chance=0.02']);
      const goAway = await broken(context, world, [['GOAWAY at each 50th request', () => undefined]]);
      return { rows: [...rows, ...goAway], counts: [], notes: [] };
    } catch (error) {
      if (!(error instanceof Missing)) throw error;
      return { rows, counts: [], notes: [error.message] };
    }
  },
};

async function broken(
  { sizes, say }: Context,
  world: World,
  breaks: readonly (readonly [string, Break])[],
): Promise<readonly Row[]> {
  const count = sizes.outage;
  const namespace = `outage-${count}`;
  await world.populate(namespace, count);
  const [, port = ''] = /https:\/\/127\.0\.0\.1:(\d+)/.exec(world.kubeconfig) ?? [];
  await using balancer = await startTcpProxy(() => Number(port));
  const kubeconfigFile = join(world.dir, 'kubeconfig-balancer');
  await writeFile(kubeconfigFile, world.kubeconfig.replace(`:${port}`, `:${balancer.port}`), { mode: 0o600 });
  const ready = untilAll(world, namespace, count, { isPublished: isIdentitySecret, isReady });
  await using bundle = await startBundle(kubeconfigFile, ['-n', namespace, '--no-leader-elect', '--observe', 'names']);
  await ready;
  const rows: Row[] = [row(`${world.kind}: connections of ${count} publications`, '', [balancer.open])];
  for (const [what, breakWay] of breaks) {
    say(what);
    const about = `${world.kind}: ${count} renewals, ${what}`;
    const { items } = await world.kube.list(RESOURCES.secrets, { namespace });
    const versions = new Map(items.map(({ metadata }) => [metadata.name, metadata.resourceVersion]));
    const lostBefore = await unanswered(bundle);
    const value = new Date().toISOString();
    const began = performance.now();
    const all = untilAll(world, namespace, count, {
      isPublished: (secret) =>
        isIdentitySecret(secret) && versions.get(secret.metadata.name) !== secret.metadata.resourceVersion,
      isReady: hasRenewed(value),
    });
    const breaking = new Promise((resolve) => setTimeout(resolve, UNDER_WAY_MS)).then(() => breakWay(world, balancer));
    await annotate(world, namespace, count, value).catch((error: unknown) => say(String(error)));
    await breaking;
    await annotate(world, namespace, count, value);
    const { secretsAt, readyAt } = await all;
    rows.push(
      row(`${about}, to the last Secret`, 's', [(secretsAt - began) / 1000]),
      row(`${about}, to the last status`, 's', [(readyAt - began) / 1000]),
      row(`${about}: requests without an answer`, '', [(await unanswered(bundle)) - lostBefore]),
    );
  }
  return rows;
}

async function unanswered(bundle: Bundle): Promise<number> {
  const lines = (await bundle.metrics()).split('\n').filter((line) => line.startsWith('meshcert_kube_requests_total{'));
  return lines
    .filter((line) => line.includes('status="0"'))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}
