import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededTree } from './seeded-tree.ts';
import { structureFindings } from './structure.ts';

const findings = (files: Readonly<Record<string, string>>): string[] =>
  structureFindings(seededTree({ 'src/x/x.ts': '', 'adapters/y/y.ts': '', 'sandbox/z/z.ts': '', ...files }));

test('a tree that keeps the rules has no findings', () => {
  assert.deepEqual(findings({ 'src/x/a.ts': "import './x.ts';\n" }), []);
});

test('a file cycle is found through type-only imports, re-exports and import types, but not through import()', () => {
  const cycle = (last: string) => ({
    'src/x/a.ts': "import type { B } from './b.ts';\n",
    'src/x/b.ts': "export { C } from './c.ts';\n",
    'src/x/c.ts': last,
  });
  const found = ['files import each other: src/x/a.ts -> src/x/b.ts -> src/x/c.ts -> src/x/a.ts'];
  assert.deepEqual(findings(cycle("import {\n  A,\n} from './a.ts';\n")), found);
  assert.deepEqual(findings(cycle("type A = import('./a.ts').A;\n")), found);
  assert.deepEqual(findings(cycle("const a = () => import('./a.ts');\n")), []);
});

test('a folder cycle is found where no files import each other, with the imports that make it', () => {
  assert.deepEqual(
    findings({
      'src/x/a.ts': "import '../x/deep/b.ts';\n",
      'src/x/deep/b.ts': "import '../../z/c.ts';\n",
      'src/z/c.ts': "import type { X } from '../x/x.ts';\n",
    }),
    [
      'folders import each other: src/x -> src/x/deep -> src/z -> src/x\n' +
        '  src/x/a.ts imports src/x/deep/b.ts\n' +
        '  src/x/deep/b.ts imports src/z/c.ts\n' +
        '  src/z/c.ts imports src/x/x.ts',
    ],
  );
});

test('two separate cycles are both found, and one cycle once', () => {
  const pair = (a: string, b: string) => ({
    [`src/x/${a}.ts`]: `import './${b}.ts';\n`,
    [`src/x/${b}.ts`]: `import './${a}.ts';\n`,
  });
  assert.equal(findings({ ...pair('a', 'b'), ...pair('c', 'd') }).length, 2);
});

test('meaningless names are found', () => {
  assert.deepEqual(
    findings({ 'src/x/utils.ts': '', 'adapters/common/c.ts': '' }).map((finding) => finding.split(';')[0]),
    ['adapters/common says nothing of what is in it', 'src/x/utils.ts says nothing of what is in it'],
  );
});

test('types that share a name are found, exported or not', () => {
  const files = {
    'src/x/a.ts': 'export interface Target {}\ninterface Own {}\n',
    'src/x/b.ts': 'class Target {}\n',
    'adapters/y/c.ts': 'type Target = 1;\n',
    'src/x/c.test.ts': 'interface Own {}\n',
  };
  assert.deepEqual(findings(files), [
    'the type Target is declared in adapters/y/c.ts and src/x/a.ts and src/x/b.ts; give each its own name',
  ]);
});
