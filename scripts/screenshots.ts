import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { systemClock } from '../src/async/clock.ts';
import { startHttp } from '../src/http/server.ts';
import { silentLog } from '../src/mesh/log.ts';
import { Board, badStatus, goodStatus } from '../test/support/board.ts';
import { VERSION } from './image/content.ts';
import { ROOT } from './tree.ts';

/** Takes the pictures of docs/status-page.md. The first argument is the directory, by default docs/images. */
const directory = process.argv[2] ?? join(ROOT, 'docs', 'images');
const now = Date.now();
const iso = (ms: number) => new Date(ms).toISOString();

const board = new Board();
const route = (kind: string, namespace: string, name: string, context: string) => ({
  ...{ kind, namespace, name, context },
  state: 'ok' as const,
});
board.put(
  'istio',
  goodStatus(now, {
    mappings: [
      route('EnvoyProxy', 'emissary', 'edge', 'istio-identity'),
      route('Mapping', 'shop', 'web', 'istio'),
      route('Service', 'shop', 'web', 'istio-web-https'),
    ],
  }),
);
const { conditions } = goodStatus(now);
const until = iso(now + 540_000);
board.put(
  'linkerd',
  goodStatus(now, {
    conditions: [
      ...conditions,
      {
        ...{ type: 'Trusted', status: 'False', reason: 'LeafHeld', lastTransitionTime: iso(now - 60_000) },
        message: `A newer certificate is held back until ${until}: its root is new to the upstreams.`,
      },
    ],
    mesh: 'linkerd',
    mappings: [
      route('EnvoyProxy', 'emissary', 'edge', 'linkerd-identity'),
      route('Mapping', 'shop', 'web', 'linkerd-web'),
      route('Service', 'shop', 'web', 'linkerd-web-http'),
    ],
    id: 'emissary.emissary.serviceaccount.identity.linkerd.cluster.local',
    held: { fingerprint: 'e5'.repeat(32), reason: 'new_root', until },
    targets: [{ id: 'web.shop.serviceaccount.identity.linkerd.cluster.local', context: 'linkerd-web' }],
  }),
);
for (const name of ['consul', 'consul-eu', 'consul-us'])
  board.put(name, { ...badStatus(now, 'consul-server.consul.svc:8502'), mesh: 'consul' });

const server = await startHttp({
  allowedHosts: [],
  host: '127.0.0.1',
  port: 0,
  version: VERSION,
  source: board,
  health: () => ({ ready: true, leader: true, problems: [] }),
  metrics: { expose: () => '' },
  clock: systemClock,
  log: silentLog,
});
const executablePath = process.env.MESHCERT_CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu'] });
await mkdir(directory, { recursive: true });
const shots = [
  { name: 'status-light', colorScheme: 'light', width: 1360, height: 900 },
  { name: 'status-dark', colorScheme: 'dark', width: 1360, height: 900 },
  { name: 'status-phone', colorScheme: 'light', width: 390, height: 900 },
] as const;
for (const { name, colorScheme, width, height } of shots) {
  const page = await browser.newPage({ colorScheme, viewport: { width, height } });
  await page.goto(server.url);
  await page.getByText('Live', { exact: true }).waitFor();
  if (width > 1000) await page.locator('#rows summary').last().click();
  const path = join(directory, `${name}.png`);
  await page.screenshot({ path });
  process.stdout.write(`${path}\n`);
}
await browser.close();
await server.stop();
