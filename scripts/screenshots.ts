import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { Board, badStatus, goodStatus } from '../src/http/board.fixture.ts';
import { startHttp } from '../src/http/server.ts';
import { systemClock } from '../src/mesh/clock.ts';
import { silentLog } from '../src/mesh/log.ts';
import { ROOT } from './tree.ts';

/** Draws the status page in both themes for the README; the directory is the first argument, docs/images without it. */
const directory = process.argv[2] ?? join(ROOT, 'docs', 'images');
const now = Date.now();
const iso = (ms: number) => new Date(ms).toISOString();

const board = new Board();
board.put('istio', goodStatus(now));
board.put(
  'linkerd',
  goodStatus(now, {
    mesh: 'linkerd',
    id: 'emissary.emissary.serviceaccount.identity.linkerd.cluster.local',
    held: { fingerprint: 'e5'.repeat(32), reason: 'new_root', until: iso(now + 540_000) },
    targets: [{ id: 'web.shop.serviceaccount.identity.linkerd.cluster.local', context: 'linkerd-web' }],
  }),
);
board.put('consul', { ...badStatus(now), mesh: 'consul' });

const server = await startHttp({
  host: '127.0.0.1',
  port: 0,
  version: '0.1.0',
  source: board,
  health: () => ({ ready: true, leader: true, problems: [] }),
  metrics: { expose: () => '' },
  clock: systemClock,
  log: silentLog,
});
const executablePath = process.env.MESHCERT_CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu'] });
await mkdir(directory, { recursive: true });
for (const colorScheme of ['light', 'dark'] as const) {
  const page = await browser.newPage({ colorScheme, viewport: { width: 1360, height: 760 } });
  await page.goto(server.url);
  await page.getByText('Live', { exact: true }).waitFor();
  await page.locator('summary').first().click();
  const path = join(directory, `status-${colorScheme}.png`);
  await page.screenshot({ path });
  process.stdout.write(`${path}\n`);
}
await browser.close();
await server.stop();
