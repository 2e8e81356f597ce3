import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path/posix';
import ts from 'typescript';
import { filesBelow } from '../tree.ts';
import { cyclesOf } from './cycles.ts';

/** docs/adr/0002-size-limits.md; CONTRIBUTING.md states the same numbers. */
export const LIMITS = { linesPerFile: 400, filesPerFolder: 15, smallFile: 30, importersOfSmallFile: 3 } as const;

const FORBIDDEN_NAME = /^(utils?|helpers?|common|managers?|misc)$/;

/** Exceptions to the rules, each with its reason. A reason that no longer applies is a finding too. */
export interface Allowed {
  /** Small files that are a contract of their own, or an entry point. */
  readonly smallFiles: Readonly<Record<string, string>>;
  /** Names of types that mean the same in each of the files that declare them. */
  readonly typeNames: Readonly<Record<string, string>>;
  /** Folders with the name of a module, which import rules would mistake for it. */
  readonly moduleNames: Readonly<Record<string, string>>;
}

interface Module {
  readonly file: string;
  readonly lines: number;
  /** Files that are loaded with it, type-only ones too. */
  readonly imports: readonly string[];
  /** Files that are loaded on demand, with import(). */
  readonly lazyImports: readonly string[];
  readonly types: readonly string[];
}

const isProduct = (file: string): boolean =>
  file.endsWith('.ts') && !/\.(test|fixture)\.ts$/.test(file) && !file.includes('/gen/');

/** Returns what violates the limits on size, the names or the absence of cycles, in src and adapters. */
export function structureFindings(root: string, allowed: Allowed): string[] {
  const modules = filesBelow(root, 'src', 'adapters')
    .filter(isProduct)
    .map((file) => moduleOf(file, readFileSync(join(root, file), 'utf8')));
  return [
    ...longFiles(modules),
    ...smallFiles(modules, allowed.smallFiles),
    ...fullFolders(modules),
    ...cycles(modules),
    ...names(modules, allowed.moduleNames),
    ...sharedTypeNames(modules, allowed.typeNames),
  ];
}

function moduleOf(file: string, text: string): Module {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest);
  const imports = new Set<string>();
  const lazyImports = new Set<string>();
  const add = (found: Set<string>, node: ts.Node | undefined) => {
    if (node && ts.isStringLiteral(node) && node.text.startsWith('.')) found.add(join(dirname(file), node.text));
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) add(imports, node.moduleSpecifier);
    if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(imports, node.argument.literal);
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(lazyImports, node.arguments[0]);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return {
    file,
    lines: text.split('\n').length - 1,
    imports: [...imports],
    lazyImports: [...lazyImports],
    types: source.statements.filter(isTypeDeclaration).flatMap(({ name }) => (name ? [name.text] : [])),
  };
}

const isTypeDeclaration = (node: ts.Statement) =>
  ts.isInterfaceDeclaration(node) ||
  ts.isTypeAliasDeclaration(node) ||
  ts.isClassDeclaration(node) ||
  ts.isEnumDeclaration(node);

const longFiles = (modules: readonly Module[]): string[] =>
  modules
    .filter(({ lines }) => lines > LIMITS.linesPerFile)
    .map(({ file, lines }) => `${file} has ${lines} lines; split it into files of at most ${LIMITS.linesPerFile}`);

function smallFiles(modules: readonly Module[], allowed: Allowed['smallFiles']): string[] {
  const importers = new Map<string, number>();
  for (const { imports, lazyImports } of modules) {
    for (const file of new Set([...imports, ...lazyImports])) importers.set(file, (importers.get(file) ?? 0) + 1);
  }
  const small = modules.filter(
    ({ file, lines }) => lines < LIMITS.smallFile && (importers.get(file) ?? 0) < LIMITS.importersOfSmallFile,
  );
  return [
    ...small
      .filter(({ file }) => !(file in allowed))
      .map(
        ({ file, lines }) =>
          `${file} has ${lines} lines and ${importers.get(file) ?? 0} importers; ` +
          `merge it into an importer, because a file under ${LIMITS.smallFile} lines needs ${LIMITS.importersOfSmallFile}`,
      ),
    ...unneeded(allowed, new Set(small.map(({ file }) => file)), 'small file'),
  ];
}

function fullFolders(modules: readonly Module[]): string[] {
  const sizes = new Map<string, number>();
  for (const { file } of modules) sizes.set(dirname(file), (sizes.get(dirname(file)) ?? 0) + 1);
  return [...sizes]
    .filter(([, size]) => size > LIMITS.filesPerFolder)
    .map(([folder, size]) => `${folder} has ${size} files; split it into folders of at most ${LIMITS.filesPerFolder}`);
}

function cycles(modules: readonly Module[]): string[] {
  const files = new Map(modules.map(({ file, imports }) => [file, new Set(imports)]));
  const folders = new Map<string, Set<string>>();
  const edges = new Map<string, string>();
  for (const { file, imports } of modules) {
    const from = dirname(file);
    const found = folders.get(from) ?? new Set();
    for (const to of imports) {
      if (dirname(to) === from) continue;
      found.add(dirname(to));
      edges.set(`${from} ${dirname(to)}`, `${file} imports ${to}`);
    }
    folders.set(from, found);
  }
  return [
    ...cyclesOf(files).map((cycle) => `files import each other: ${cycle.join(' -> ')}`),
    ...cyclesOf(folders).map((cycle) => {
      const steps = cycle.slice(1).map((to, at) => edges.get(`${cycle[at]} ${to}`));
      return `folders import each other: ${cycle.join(' -> ')}\n  ${steps.join('\n  ')}`;
    }),
  ];
}

function names(modules: readonly Module[], allowed: Allowed['moduleNames']): string[] {
  const folders = new Set(modules.flatMap(({ file }) => ancestors(dirname(file))));
  const roots = new Set([...folders].filter((folder) => dirname(folder) === 'src').map((folder) => basename(folder)));
  const like = [...folders].filter((folder) => dirname(folder) !== 'src' && roots.has(basename(folder)));
  return [
    ...[...folders, ...modules.map(({ file }) => file)]
      .filter((path) => FORBIDDEN_NAME.test(basename(path, '.ts')))
      .map((path) => `${path} says nothing of what is in it; name the concept`),
    ...like
      .filter((folder) => !(folder in allowed))
      .map((folder) => `${folder} has the name of src/${basename(folder)}; import rules would take it for that`),
    ...unneeded(allowed, new Set(like), 'folder'),
  ];
}

const ancestors = (folder: string): string[] => (folder === '.' ? [] : [folder, ...ancestors(dirname(folder))]);

function sharedTypeNames(modules: readonly Module[], allowed: Allowed['typeNames']): string[] {
  const files = new Map<string, Set<string>>();
  for (const { file, types } of modules) {
    for (const name of types) files.set(name, (files.get(name) ?? new Set()).add(file));
  }
  const shared = [...files].filter(([, { size }]) => size > 1);
  return [
    ...shared
      .filter(([name]) => !(name in allowed))
      .map(([name, where]) => `the type ${name} is declared in ${[...where].join(' and ')}; give each its own name`),
    ...unneeded(allowed, new Set(shared.map(([name]) => name)), 'type name'),
  ];
}

const unneeded = (allowed: Readonly<Record<string, string>>, found: ReadonlySet<string>, what: string): string[] =>
  Object.keys(allowed)
    .filter((name) => !found.has(name))
    .map((name) => `the ${what} ${name} needs no exception any more; remove it from scripts/check/allowed.ts`);
