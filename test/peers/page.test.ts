import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import axe from 'axe-core';
import { type Browser, chromium, type Page } from 'playwright-core';
import { systemClock } from '../../src/async/clock.ts';
import { type HttpServer, startHttp } from '../../src/http/server.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { Board, badStatus, goodStatus } from '../support/board.ts';

const EXECUTABLE = process.env.MESHCERT_CHROMIUM ?? '/usr/bin/chromium';
/** Debian's browser in a container: no GPU, no user namespaces, and no requests to anywhere but the page. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

let browser: Browser;

before(async () => {
  browser = await chromium.launch({ executablePath: EXECUTABLE, headless: true, args: FLAGS });
});

after(() => browser?.close());

const now = () => Date.now();

function serve(board: Board, port = 0): Promise<HttpServer> {
  return startHttp({
    allowedHosts: [],
    host: '127.0.0.1',
    port,
    version: '1.2.3',
    source: board,
    health: () => ({ ready: true, leader: true, problems: [] }),
    metrics: { expose: () => '' },
    clock: systemClock,
    log: silentLog,
  });
}

/** Opens the page of a board; any complaint of the browser fails the test. */
async function withPage(
  board: Board,
  use: (page: Page, server: HttpServer) => Promise<void>,
  options: { tolerate?: RegExp } = {},
): Promise<void> {
  const server = await serve(board);
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !options.tolerate?.test(message.text())) {
      complaints.push(message.text());
    }
  });
  try {
    await page.goto(server.url);
    await use(page, server);
    assert.deepEqual(complaints, []);
  } finally {
    await page.close();
    await server.stop();
  }
}

const row = (page: Page, name: string) => page.locator(`#rows > li[data-key="emissary/${name}"]`);

test('the page shows identity, validity, trust, Mappings and state, and updates live', async () => {
  const board = new Board();
  board.put('istio', goodStatus(now()));
  await withPage(board, async (page) => {
    await page.getByText('Live', { exact: true }).waitFor();
    assert.match(await row(page, 'istio').locator('.state').innerText(), /✓\s+Serving/);
    assert.match(await row(page, 'istio').innerText(), /spiffe:\/\/cluster\.local\/ns\/emissary\/sa\/emissary/);
    const bar = row(page, 'istio').locator('svg.bar[aria-label^="25 % of its life passed"]');
    const mark = Number(await bar.locator('line.now').getAttribute('x1'));
    assert.ok(mark > 49 && mark < 52, `the mark for now stands at ${mark} of 200`);
    await row(page, 'istio').locator('summary').click();
    assert.ok(
      await row(page, 'istio')
        .getByRole('img', { name: /2 trusted root/ })
        .isVisible(),
    );
    assert.match(await row(page, 'istio').innerText(), /retained c3c3/);
    assert.match(await row(page, 'istio').innerText(), /Mapping shop\/web → istio/);
  });
});

test('a rotation appears by itself, announced, with open details still open', async () => {
  const board = new Board();
  board.put('istio', goodStatus(now()));
  await withPage(board, async (page) => {
    await page.getByText('Live', { exact: true }).waitFor();
    await row(page, 'istio').locator('summary').click();
    board.put('istio', goodStatus(now(), { fingerprint: 'd4'.repeat(32), rotations: 4 }));
    await row(page, 'istio').getByText('d4d4d4d4d4d4d4d4').first().waitFor();
    assert.match(await row(page, 'istio').innerText(), /Rotations\s+4/);
    assert.equal(await row(page, 'istio').locator('details').getAttribute('open'), '');
    assert.match(await page.locator('#announcer').innerText(), /emissary\/istio: ✓ Serving/);
    assert.equal(await page.evaluate('document.activeElement.tagName'), 'SUMMARY');
    board.put('linkerd', goodStatus(now(), { mesh: 'linkerd' }));
    await row(page, 'linkerd').waitFor();
    board.remove('istio');
    await row(page, 'istio').waitFor({ state: 'detached' });
  });
});

test('an error state says what to do next, which disappears when it ends', async () => {
  const board = new Board();
  board.put('istio', badStatus(now()));
  await withPage(board, async (page) => {
    await page.getByText('Live', { exact: true }).waitFor();
    await row(page, 'istio').locator('summary').click();
    assert.match(
      await row(page, 'istio').locator('.next').innerText(),
      /What to do:.*check the address and NetworkPolicies/,
    );
    assert.match(await page.locator('#problems').innerText(), /NotPublished ERR_MESH_UNREACHABLE: 1 certificate/);
    assert.match(await page.locator('#summary').innerText(), /✗ 1 not ready/);
    board.put('istio', goodStatus(now()));
    await row(page, 'istio').locator('.next').waitFor({ state: 'detached' });
    assert.equal(await page.locator('#problems').innerText(), '');
    await page.getByText('✓ 1 good').waitFor();
  });
});

test('a lost connection is shown, and the page catches up by itself when the agent is back', async () => {
  const board = new Board();
  board.put('istio', goodStatus(now()));
  board.put('gone', goodStatus(now()));
  await withPage(
    board,
    async (page, server) => {
      await page.getByText('Live', { exact: true }).waitFor();
      await server.stop();
      await page.getByText(/Connection lost/).waitFor();
      board.remove('gone');
      board.put('istio', goodStatus(now(), { rotations: 9 }));
      const again = await serve(board, server.port);
      try {
        await page.getByText('Live', { exact: true }).waitFor();
        await row(page, 'gone').waitFor({ state: 'detached' });
        await row(page, 'istio').locator('summary').click();
        assert.match(await row(page, 'istio').innerText(), /Rotations\s+9/);
      } finally {
        await again.stop();
      }
    },
    { tolerate: /Failed to load resource|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED/ },
  );
});

test('five hundred rows are shown, filtered, and changed one by one', async () => {
  const board = new Board();
  for (let n = 0; n < 500; n++) {
    const name = `mesh-${String(n).padStart(3, '0')}`;
    board.put(name, n === 321 ? badStatus(now()) : goodStatus(now(), { id: `spiffe://cluster.local/ns/n/sa/${name}` }));
  }
  await withPage(board, async (page) => {
    await page.getByText('500 of 500 shown').waitFor();
    assert.match(await page.locator('#summary').innerText(), /✓ 499 good .*✗ 1 not ready/);
    await page.getByLabel('Filter').fill('sa/mesh-42');
    await page.getByText('10 of 500 shown').waitFor();
    await page.getByLabel('Filter').fill('');
    await page.getByLabel('only problems').check();
    await page.getByText('1 of 500 shown').waitFor();
    assert.ok(await row(page, 'mesh-321').isVisible());
    board.put('mesh-321', goodStatus(now()));
    await page.getByText('0 of 500 shown').waitFor();
    await page.getByLabel('only problems').uncheck();
    board.put('mesh-250', goodStatus(now(), { rotations: 77 }));
    await row(page, 'mesh-250').getByText('77', { exact: true }).waitFor({ state: 'attached' });
  });
});

test('the table is complete without JavaScript', async () => {
  const board = new Board();
  board.put('istio', goodStatus(now()));
  const server = await serve(board);
  const page = await browser.newPage({ javaScriptEnabled: false });
  try {
    await page.goto(server.url);
    assert.match(await row(page, 'istio').innerText(), /Serving[\s\S]*emissary\/istio[\s\S]*istio[\s\S]*in 17 h/);
    assert.ok(await row(page, 'istio').locator('svg.bar').isVisible());
    assert.ok(await page.locator('#filter').isHidden());
  } finally {
    await page.close();
    await server.stop();
  }
});

test('the keyboard reaches every row', async () => {
  const board = new Board();
  for (const name of ['a', 'b', 'c']) board.put(name, goodStatus(now()));
  await withPage(board, async (page) => {
    await page.getByText('Live', { exact: true }).waitFor();
    assert.equal(await page.getByRole('listitem').count(), 3);
    await page.getByLabel('Sort by').focus();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    assert.equal(await row(page, 'a').locator('details').getAttribute('open'), '');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    assert.equal(await row(page, 'b').locator('details').getAttribute('open'), '');
  });
});

test('filter and order are in the address, and a reload keeps them', async () => {
  const board = new Board();
  board.put('late', goodStatus(now()));
  board.put('soon', goodStatus(now(), { notAfter: new Date(now() + 60_000).toISOString() }));
  board.put('bad', badStatus(now()));
  await withPage(board, async (page) => {
    await page.getByText('3 of 3 shown').waitFor();
    const names = () => page.locator('#rows > li:visible .name b').allInnerTexts();
    assert.deepEqual(await names(), ['bad', 'late', 'soon']);
    await page.getByLabel('Sort by').selectOption('expiry');
    await page.getByLabel('Filter').fill('spiffe');
    await page.getByText('2 of 3 shown').waitFor();
    assert.deepEqual(await names(), ['soon', 'late']);
    assert.equal(new URL(page.url()).search, '?filter=spiffe&sort=expiry');
    await page.reload();
    await page.getByText('2 of 3 shown').waitFor();
    assert.deepEqual(await names(), ['soon', 'late']);
    assert.equal(await page.getByLabel('Filter').inputValue(), 'spiffe');
  });
});

/** Runs in the page: what is wider than the window, or clips its own text. */
const CLIPPED = `(() => {
  const wide = document.scrollingElement.scrollWidth - innerWidth;
  const clipped = [...document.querySelectorAll('.next, .expires, .state, h3, footer p')]
    .filter((one) => one.checkVisibility() && (one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth))
    .map((one) => one.className + ': ' + one.textContent.slice(0, 40));
  return { wide, clipped, height: document.scrollingElement.scrollHeight, problems: document.getElementById('problems').offsetHeight };
})()` as unknown as () => { wide: number; clipped: string[]; height: number; problems: number };

const VIOLATIONS = `axe.run().then(({ violations }) => violations.map(({ id, nodes }) => id + ' ' + nodes[0].html))`;

for (const count of [1, 10, 200]) {
  for (const good of [true, false]) {
    test(`${count} ${good ? 'good' : 'failing'} certificates fit every window, and axe finds no violation`, async () => {
      const board = new Board();
      for (let at = 0; at < count; at++) board.put(`mesh-${at}`, good ? goodStatus(now()) : badStatus(now()));
      await withPage(board, async (page) => {
        await page.getByText(`${count} of ${count} shown`).waitFor();
        await page.locator('#rows summary').first().click();
        for (const width of [390, 1200, 1920]) {
          for (const colorScheme of ['light', 'dark'] as const) {
            await page.setViewportSize({ width, height: 900 });
            await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
            const { wide, clipped, height, problems } = await page.evaluate(CLIPPED);
            assert.deepEqual({ wide: Math.max(0, wide), clipped }, { wide: 0, clipped: [] }, `${width} ${colorScheme}`);
            assert.ok(height < 1800 + count * 60, `${width}: ${height} px for ${count} rows`);
            assert.ok(problems < 500, `${width}: the problems take ${problems} px`);
            if (count === 200 && width !== 1200) continue;
            await page.evaluate(axe.source);
            assert.deepEqual(await page.evaluate(VIOLATIONS), [], `${width} ${colorScheme}`);
          }
        }
      });
    });
  }
}

test('text has enough contrast to its background in both themes', async () => {
  const board = new Board();
  board.put('good', goodStatus(now()));
  board.put('bad', badStatus(now()));
  await withPage(board, async (page) => {
    await page.getByText('Live', { exact: true }).waitFor();
    const backgrounds = new Set<string>();
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      const contrasts = await page.evaluate(CONTRASTS);
      backgrounds.add(contrasts.background);
      assert.ok(contrasts.all.length >= 6);
      for (const { selector, ratio } of contrasts.all) {
        assert.ok(ratio >= 4.5, `${colorScheme}: ${selector} has a contrast of ${ratio.toFixed(2)}`);
      }
    }
    assert.equal(backgrounds.size, 2);
  });
});

interface Contrasts {
  readonly background: string;
  readonly all: readonly { readonly selector: string; readonly ratio: number }[];
}

/** Runs in the page: WCAG contrast of some texts against the page's background. */
const CONTRASTS = `(() => {
  const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const luminance = (text) => {
    const [r, g, b] = channels(text).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = getComputedStyle(document.body).backgroundColor;
  const contrast = (color) => {
    const [a, b] = [luminance(color), luminance(background)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const selectors = ['body', '.columns', '.good .state', '.bad .state', '.next b', 'footer p', '#connection', 'summary'];
  const all = selectors.map((selector) => ({ selector, ratio: contrast(getComputedStyle(document.querySelector(selector)).color) }));
  return { background, all };
})()` as unknown as () => Contrasts;
