import assert from 'node:assert/strict';
import { test } from 'node:test';
import { badStatus, goodStatus } from '../../test/support/board.ts';
import { SCRIPT } from './gen/assets.ts';
import { html, relative, renderPage, renderProblems, renderRow, verdictOf } from './page.ts';

const NOW = Date.UTC(2026, 0, 1);
const state = { ready: true, problems: [], version: '1', now: NOW };
const entry = (status = goodStatus(NOW), name = 'istio') => ({ namespace: 'emissary', name, status });

test('every value in markup is escaped', () => {
  const evil = '<script>"\'&';
  assert.equal(html`<p title="${evil}">${[evil]}</p>`.text, `<p title="${ESCAPED}">${ESCAPED}</p>`);
  assert.equal(html`${undefined}${false}${0}${html`<b>`}`.text, '0<b>');
});
const ESCAPED = '&lt;script&gt;&quot;&#39;&amp;';

test('a hostile status cannot break out of the page', () => {
  const evil = '"><script>alert(1)</script>';
  const status = goodStatus(NOW, {
    mesh: evil,
    id: evil,
    held: { fingerprint: evil, reason: evil, until: evil },
    lastError: { code: evil, message: evil, firstTime: evil, time: evil },
    mappings: [{ kind: evil, namespace: evil, name: evil, state: evil, context: evil, message: evil }],
    targets: [{ id: evil, context: evil }],
    upstreams: [{ address: evil, state: evil, id: evil, message: evil }],
    roots: [{ fingerprint: evil, subject: evil, notAfter: evil, state: 'named' }],
    conditions: [{ type: 'Ready', status: 'False', reason: evil, message: evil, lastTransitionTime: evil }],
  });
  assert.doesNotMatch(renderRow(entry(status, evil), NOW).text, /<script/);
  assert.doesNotMatch(renderProblems([entry(status, evil)]).text, /<script/);
});

test('a good certificate shows identity, validity, roots and Mappings', () => {
  const { text } = renderRow(entry(), NOW);
  assert.match(text, /spiffe:\/\/cluster\.local\/ns\/emissary\/sa\/emissary/);
  assert.match(text, /aria-label="25 % of its life passed; valid until 2026-01-01T18:00:00\.000Z, renewal at/);
  assert.match(text, /in 18 h/);
  assert.match(text, /class="retained">retained<\/span> <code>c3c3/);
  assert.match(text, /Mapping shop\/web → istio/);
  assert.doesNotMatch(text, /What to do/);
});

test('upstreams are shown with who answered; another identity makes a good certificate a problem', () => {
  const web = { address: 'web.shop:443', state: 'ok', id: 'spiffe://cluster.local/ns/shop/sa/web' };
  const api = { address: 'api.shop:443', state: 'ERR_PROBE_UPSTREAM_ID', message: 'api.shop:443 presents another' };
  const { conditions } = goodStatus(NOW);
  const condition = {
    type: 'UpstreamVerified',
    status: 'False',
    reason: 'ProbeUpstreamId',
    message: `ERR_PROBE_UPSTREAM_ID: ${api.message}`,
    lastTransitionTime: new Date(NOW).toISOString(),
  } as const;
  const status = goodStatus(NOW, { upstreams: [web, api], conditions: [...conditions, condition] });
  const { text } = renderRow(entry(status), NOW);
  assert.match(text, /✓ ok<\/span> web\.shop:443 is <code>spiffe:\/\/cluster\.local\/ns\/shop\/sa\/web</);
  assert.match(text, /! ERR_PROBE_UPSTREAM_ID<\/span> api\.shop:443: api\.shop:443 presents another/);
  const { level, word } = verdictOf(status);
  assert.deepEqual([level, word], ['bad', 'UpstreamNotVerified']);
  assert.match(nextOf(text), /presents another/);
});

test('a certificate that is not ready shows what to do next', () => {
  const { text } = renderRow(entry(badStatus(NOW)), NOW);
  assert.match(text, /class="bad"/);
  assert.match(text, /What to do:<\/b> ERR_MESH_UNREACHABLE: .* check the address and NetworkPolicies</);
  assert.match(text, /no certificate/);
});

const nextOf = (text: string): string => /What to do:<\/b>(.*?)<\/p>/s.exec(text)?.[1] ?? '';

test('the advice names the cause once, however many conditions name it', () => {
  const bad = badStatus(NOW);
  const cause = `${bad.lastError?.code}: ${bad.lastError?.message}`;
  const at = { lastTransitionTime: new Date(NOW).toISOString() };
  const ready = `The certificate expired at 2026-01-01T00:00:00Z, and no newer one came. Since 2026-01-01T00:00:00Z: ${cause}`;
  const emergency = `The certificate ends at 2026-01-01T00:00:00Z, and no newer one is published. ${cause}`;
  const expired = {
    ...bad,
    conditions: [
      { type: 'Ready', status: 'False', reason: 'Expired', message: ready, ...at } as const,
      { type: 'Published', status: 'False', reason: 'MeshUnreachable', message: cause, ...at } as const,
      { type: 'Referenced', status: 'False', reason: 'NoMapping', message: 'No Mapping names it.', ...at } as const,
      { type: 'Degraded', status: 'True', reason: 'EmergencyBand', message: emergency, ...at } as const,
    ],
  };
  for (const status of [bad, expired]) {
    const next = nextOf(renderRow(entry(status), NOW).text);
    assert.equal(next.match(/cannot reach istiod/g)?.length, 1, next);
    assert.equal(nextOf(renderProblems([entry(status)]).text), next);
  }
  assert.match(nextOf(renderRow(entry(expired), NOW).text), /Ready: .*Referenced: No Mapping names it\./);
});

test('certificates with one cause are one group with its advice once, and the worst comes first', () => {
  const held = { fingerprint: 'x', reason: 'new_root', until: '2026-01-01T01:00:00Z' };
  const entries = [
    entry(goodStatus(NOW), 'good'),
    entry(goodStatus(NOW, { held }), 'held'),
    ...Array.from({ length: 20 }, (_, at) => entry(badStatus(NOW), `bad-${String(at).padStart(2, '0')}`)),
  ];
  const { text } = renderProblems(entries);
  assert.equal(text.match(/check the address and NetworkPolicies/g)?.length, 1);
  assert.match(text, /NotPublished <code>ERR_MESH_UNREACHABLE<\/code>: 20 certificates[\s\S]*LeafHeld: 1 certificate</);
  assert.match(text, /emissary\/bad-00, [\s\S]* and 12 more/);
  assert.doesNotMatch(text, /emissary\/good/);
  const page = renderPage(entries, state);
  const order = [...page.matchAll(/data-key="emissary\/([a-z]+)/g)].map(([, name]) => name);
  assert.deepEqual([order.at(0), order.at(-2), order.at(-1)], ['bad', 'held', 'good']);
});

test('the history is newest first', () => {
  const { text } = renderRow(entry(badStatus(NOW)), NOW);
  const [list = ''] = /<ol class="happenings">.*?<\/ol>/s.exec(text) ?? [];
  const words = list.replace(/<[^>]+>/g, ' ').replace(/ +/g, ' ');
  assert.match(
    words,
    /^ now : failed: ERR_MESH_UNREACHABLE .*Ready became False \(NotPublished\).*6 h ago : certificate/,
  );
});

test('the verdict is never shown by colour alone, and the worst wins', () => {
  assert.deepEqual(verdictOf(goodStatus(NOW)), { level: 'good', word: 'Serving', symbol: '✓', next: [] });
  const held = { fingerprint: 'x', reason: 'new_root', until: '2026-01-01T01:00:00Z' };
  assert.equal(verdictOf(goodStatus(NOW, { held })).word, 'LeafHeld');
  assert.equal(verdictOf(badStatus(NOW)).level, 'bad');
  assert.equal(verdictOf(goodStatus(NOW, { conditions: [] })).word, 'Starting');
});

test('nothing on the page is inline or from another origin', () => {
  const page = renderPage([entry(), entry(badStatus(NOW), 'two')], state);
  assert.doesNotMatch(page, / style=| on[a-z]+=|javascript:|https?:\/\/(?!www\.w3\.org)/);
  assert.doesNotMatch(page, /<script(?! src="page\.js" defer><\/script>)/);
  assert.doesNotMatch(SCRIPT, /https?:|eval|new Function/);
});

test('an empty cluster shows how to begin', () => {
  assert.match(renderPage([], state), /Apply one, or give a file with --config/);
});

test('relative times use the largest unit that fits', () => {
  assert.equal(relative(90_000), 'in 1 min');
  assert.equal(relative(-86_400_000), '1 d ago');
  assert.equal(relative(500), 'now');
});
