import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { filesWithVersion, withVersion } from '../generate/version.ts';
import { VERSION } from '../image/content.ts';
import { capture } from '../run.ts';
import { filesBelow, ROOT } from '../tree.ts';

const read = (file: string): Promise<string> => readFile(join(ROOT, file), 'utf8');

/** Files with old versions, and those that npm or the generator writes as a whole. */
const OTHERS = ['CHANGELOG.md', 'docs/upgrade.md', 'package.json', 'package-lock.json'];

test('no file mentions the version where a change of package.json does not reach it', async () => {
  const followed = new Set(filesWithVersion());
  const files = filesBelow(ROOT).filter((file) => /\.(md|ya?ml|json|ts|tpl)$/.test(file) && !OTHERS.includes(file));
  assert.ok(files.length > 500);
  const left: string[] = [];
  for (const file of files) {
    const text = await read(file);
    const next = followed.has(file) ? withVersion(file, text, '99.0.0') : text;
    for (const line of next.split('\n')) {
      const mentions = line.includes(VERSION) && (/meshcert/.test(line) || file.endsWith('/Chart.yaml'));
      // This test itself, and addresses.
      if (mentions && !file.startsWith('scripts/release/')) left.push(`${file}: ${line.trim()}`);
    }
  }
  assert.deepEqual(left, []);
});

test('a new version reaches chart, image, overlays and docs', async () => {
  for (const [file, expected] of [
    ['deploy/helm/meshcert/Chart.yaml', /^version: 99\.0\.0-rc\.1$/m],
    ['deploy/helm/meshcert/Chart.yaml', /^appVersion: 99\.0\.0-rc\.1$/m],
    ['deploy/helm/meshcert/Chart.yaml', /name: crds\n {4}version: 99\.0\.0-rc\.1$/m],
    ['deploy/helm/meshcert/charts/crds/Chart.yaml', /^version: 99\.0\.0-rc\.1$/m],
    ['deploy/kustomize/overlays/deployment/deployment.yaml', /image: ghcr.io\/meshcert\/meshcert:99\.0\.0-rc\.1$/m],
    ['README.md', /charts\/meshcert --version 99\.0\.0-rc\.1 /],
    ['README.md', /npx meshcert@99\.0\.0-rc\.1 /],
  ] as const) {
    assert.ok(filesWithVersion().includes(file), file);
    const next = withVersion(file, await read(file), '99.0.0-rc.1');
    assert.match(next, expected, file);
    assert.equal(withVersion(file, next, VERSION), await read(file), 'and back');
  }
  assert.match(await read('deploy/helm/meshcert/Chart.yaml'), /^kubeVersion: ">=1\.25\.0-0"$/m);
});

test('package-lock.json has the version too', async () => {
  const { version, packages } = JSON.parse(await read('package-lock.json'));
  assert.deepEqual([version, packages[''].version], [VERSION, VERSION]);
});

test('a release needs the tag of this version, a section of the changelog, and an architecture that exists', async () => {
  const release = (...args: string[]) => capture(process.execPath, ['--import', 'tsx', 'scripts/release.ts', ...args]);
  const { code, output } = await release();
  assert.equal(code, 1);
  assert.match(output, /^release: (CHANGELOG\.md has no section "## |the commit has no tag v)/);
  assert.match(
    (await release('--dry-run', '--arch', 'riscv64')).output,
    /^release: there is no image for riscv64; --arch/,
  );
});
