import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../tree.ts';
import { seededTree } from './seeded-tree.ts';
import { type Allowed, LIMITS, structureFindings } from './structure.ts';

const NOTHING: Allowed = { smallFiles: {}, typeNames: {}, moduleNames: {} };

/** Makes a file that is not small. */
const long = (text = ''): string => `${text}${'\n'.repeat(LIMITS.smallFile)}`;

function findings(files: Readonly<Record<string, string>>, allowed: Partial<Allowed> = {}): string[] {
  return structureFindings(seededTree({ 'src/x/x.ts': long(), 'adapters/y/y.ts': long(), ...files }), {
    ...NOTHING,
    ...allowed,
  });
}

test('a tree within the limits has no findings', () => {
  assert.deepEqual(findings({ 'src/x/a.ts': '\n'.repeat(LIMITS.linesPerFile) }), []);
});

test('a file with too many lines is found, and tests and generated files are not counted', () => {
  const tooLong = '\n'.repeat(LIMITS.linesPerFile + 1);
  assert.deepEqual(
    findings({
      'adapters/istio/c.ts': tooLong,
      'src/x/a.test.ts': tooLong,
      'src/x/a.fixture.ts': tooLong,
      'src/grpc/gen/p.ts': tooLong,
    }),
    ['adapters/istio/c.ts has 401 lines; split it into files of at most 400'],
  );
});

test('a folder with too many files is found, and its tests and subfolders are not counted', () => {
  const files = (folder: string, count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, at) => [`${folder}/f${at}.ts`, long()]));
  const full = { ...files('src/full', LIMITS.filesPerFolder), 'src/full/a.test.ts': '', 'src/full/deep/a.ts': long() };
  assert.deepEqual(findings(full), []);
  assert.deepEqual(findings(files('src/full', LIMITS.filesPerFolder + 1)), [
    'src/full has 16 files; split it into folders of at most 15',
  ]);
});

test('a small file needs importers; tests do not count as importers, and import() does', () => {
  const importer = long("import { a } from './small.ts';\n");
  const files = { 'src/x/small.ts': 'export const a = 1;\n', 'src/x/a.ts': importer, 'src/x/b.ts': importer };
  assert.deepEqual(findings({ ...files, 'src/x/a.test.ts': importer }), [
    'src/x/small.ts has 1 lines and 2 importers; merge it into an importer, because a file under 30 lines needs 3',
  ]);
  assert.deepEqual(findings({ ...files, 'src/x/c.ts': long("const a = () => import('./small.ts');\n") }), []);
});

test('a small file may be listed, until that is no longer needed', () => {
  const smallFiles = { 'src/x/small.ts': 'a public contract' };
  assert.deepEqual(findings({ 'src/x/small.ts': 'export const a = 1;\n' }, { smallFiles }), []);
  assert.deepEqual(findings({ 'src/x/small.ts': long() }, { smallFiles }), [
    'the small file src/x/small.ts needs no exception any more; remove it from scripts/check/allowed.ts',
  ]);
});

test('a file cycle is found through type-only imports, re-exports and import types, but not through import()', () => {
  const cycle = (last: string) => ({
    'src/x/a.ts': long("import type { B } from './b.ts';\n"),
    'src/x/b.ts': long("export { C } from './c.ts';\n"),
    'src/x/c.ts': long(last),
  });
  const found = ['files import each other: src/x/a.ts -> src/x/b.ts -> src/x/c.ts -> src/x/a.ts'];
  assert.deepEqual(findings(cycle("import {\n  A,\n} from './a.ts';\n")), found);
  assert.deepEqual(findings(cycle("type A = import('./a.ts').A;\n")), found);
  assert.deepEqual(findings(cycle("const a = () => import('./a.ts');\n")), []);
});

test('a folder cycle is found where no files import each other, with the imports that make it', () => {
  assert.deepEqual(
    findings({
      'src/x/a.ts': long("import '../x/deep/b.ts';\n"),
      'src/x/deep/b.ts': long("import '../../z/c.ts';\n"),
      'src/z/c.ts': long("import type { X } from '../x/x.ts';\n"),
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
    [`src/x/${a}.ts`]: long(`import './${b}.ts';\n`),
    [`src/x/${b}.ts`]: long(`import './${a}.ts';\n`),
  });
  assert.equal(findings({ ...pair('a', 'b'), ...pair('c', 'd') }).length, 2);
});

test('meaningless names are found, and folders with the name of a module', () => {
  assert.deepEqual(
    findings({ 'src/x/utils.ts': long(), 'adapters/common/c.ts': long(), 'src/z/x/d.ts': long() }).map(
      (finding) => finding.split(';')[0],
    ),
    [
      'adapters/common says nothing of what is in it',
      'src/x/utils.ts says nothing of what is in it',
      'src/z/x has the name of src/x',
    ],
  );
  assert.deepEqual(findings({ 'src/z/x/d.ts': long() }, { moduleNames: { 'src/z/x': 'it is its part' } }), []);
});

test('types that share a name are found, exported or not, and may be listed', () => {
  const files = {
    'src/x/a.ts': long('export interface Target {}\ninterface Own {}\n'),
    'src/x/b.ts': long('class Target {}\n'),
    'adapters/y/c.ts': long('type Target = 1;\n'),
    'src/x/c.test.ts': 'interface Own {}\n',
  };
  assert.deepEqual(findings(files), [
    'the type Target is declared in adapters/y/c.ts and src/x/a.ts and src/x/b.ts; give each its own name',
  ]);
  assert.deepEqual(findings(files, { typeNames: { Target: 'the same thing' } }), []);
  assert.equal(findings(files, { typeNames: { Target: 'the same thing', Own: 'declared once' } }).length, 1);
});

test('CONTRIBUTING.md and the decision state the limits that are checked', () => {
  const contributing = readFileSync(join(ROOT, 'CONTRIBUTING.md'), 'utf8');
  const { linesPerFile, filesPerFolder, smallFile, importersOfSmallFile } = LIMITS;
  assert.ok(contributing.includes(`At most ${linesPerFile} lines per file and ${filesPerFolder} files per folder.`));
  assert.ok(contributing.includes(`A file under ${smallFile} lines needs ${importersOfSmallFile} importers.`));
  const decision = readFileSync(join(ROOT, 'docs/adr/0002-size-limits.md'), 'utf8');
  assert.ok(decision.includes(`A file has at most ${linesPerFile} lines.`));
  assert.ok(decision.includes(`A folder has at most ${filesPerFolder} files.`));
  assert.ok(decision.includes(`fewer than ${smallFile} lines has at least ${importersOfSmallFile} importers`));
});
