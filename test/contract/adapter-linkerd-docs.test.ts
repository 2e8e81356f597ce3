import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { parseDocuments } from '../../src/config/documents.ts';
import { TARGET_CODES } from '../../src/gateway/emissary/routes.ts';
import { gateways } from '../../src/gateways.ts';

const guide = readFileSync(new URL('../../docs/linkerd.md', import.meta.url), 'utf8');
const errors = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');

describe('docs/linkerd.md', () => {
  const blocks = [...guide.matchAll(/^```yaml\n(.*?)^```/gms)].map(([, text = '']) => text);

  it('shows only MeshCertificates that are accepted', () => {
    const documents = blocks.filter((text) => text.includes('kind: MeshCertificate\n'));
    assert.equal(documents.length, 2);
    for (const text of documents)
      assert.deepEqual(parseDocuments(text, 'docs/linkerd.md', adapters, gateways).errors, []);
  });

  it('shows a probe that is accepted', () => {
    const probe = blocks.find((text) => text.includes('\n  probe:'));
    const [first = ''] = blocks.filter((text) => text.includes('kind: MeshCertificate\n'));
    assert.deepEqual(parseDocuments(`${first}${probe}`, 'docs/linkerd.md', adapters, gateways).errors, []);
  });

  it('and docs/errors.md explain every reason for which a Mapping is not changed', () => {
    for (const code of TARGET_CODES) {
      assert.ok(guide.includes(code) || guide.includes(code.replace('ERR_TARGET', '…')), code);
      assert.ok(errors.includes(`\`${code}\``), code);
    }
  });
});
