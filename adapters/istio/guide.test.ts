import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { istio } from './adapter.ts';
import { istioConfig } from './config.ts';

const guide = readFileSync(new URL('../../docs/istio.md', import.meta.url), 'utf8');

test('every manifest of the guide is valid', () => {
  const blocks = [...guide.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text = '']) => text);
  const specs = blocks
    .flatMap((text) => parseAllDocuments(text))
    .map((document) => document.toJS()?.spec?.istio)
    .filter((spec) => spec !== undefined);
  assert.equal(specs.length, 8);
  for (const spec of specs) istioConfig.parse(spec);
});

test('the guide names the ALPN values that the adapter requests', () => {
  assert.ok(guide.includes(`\`${istio.tls.alpnProtocols}\` (default)`));
});
