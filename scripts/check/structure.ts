import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path/posix';
import ts from 'typescript';
import { trackedBelow } from '../tree.ts';
import { cyclesOf } from './cycles.ts';

const FORBIDDEN_NAME = /^(utils?|helpers?|common|managers?|misc)$/;

export interface Module {
  readonly file: string;
  /** Files that are loaded with it, type-only ones too. */
  readonly imports: readonly string[];
  /** Files that are loaded on demand, with import(). */
  readonly lazyImports: readonly string[];
  /** Packages and modules of Node.js. */
  readonly packages: readonly string[];
  readonly types: readonly string[];
}

const isProduct = (file: string): boolean =>
  file.endsWith('.ts') && !file.endsWith('.test.ts') && !file.includes('/gen/');

/** Returns what violates the rules on names or the absence of cycles, in src, adapters and sandbox. */
export function structureFindings(root: string): string[] {
  const modules = modulesBelow(root, 'src', 'adapters', 'sandbox');
  return [...cycles(modules), ...names(modules), ...sharedTypeNames(modules)];
}

/** The TypeScript files below the directories, without tests and generated ones. */
export const modulesBelow = (root: string, ...directories: readonly string[]): Module[] =>
  trackedBelow(root, ...directories)
    .filter(isProduct)
    .map((file) => moduleOf(file, readFileSync(join(root, file), 'utf8')));

function moduleOf(file: string, text: string): Module {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest);
  const imports = new Set<string>();
  const lazyImports = new Set<string>();
  const packages = new Set<string>();
  const add = (found: Set<string>, node: ts.Node | undefined) => {
    if (!node || !ts.isStringLiteral(node)) return;
    if (node.text.startsWith('.')) found.add(join(dirname(file), node.text));
    else packages.add(node.text);
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
    imports: [...imports],
    lazyImports: [...lazyImports],
    packages: [...packages],
    types: source.statements.filter(isTypeDeclaration).flatMap(({ name }) => (name ? [name.text] : [])),
  };
}

const isTypeDeclaration = (node: ts.Statement) =>
  ts.isInterfaceDeclaration(node) ||
  ts.isTypeAliasDeclaration(node) ||
  ts.isClassDeclaration(node) ||
  ts.isEnumDeclaration(node);

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

function names(modules: readonly Module[]): string[] {
  const folders = new Set(modules.flatMap(({ file }) => ancestors(dirname(file))));
  return [...folders, ...modules.map(({ file }) => file)]
    .filter((path) => FORBIDDEN_NAME.test(basename(path, '.ts')))
    .map((path) => `${path} says nothing of what is in it; name the concept`);
}

const ancestors = (folder: string): string[] => (folder === '.' ? [] : [folder, ...ancestors(dirname(folder))]);

function sharedTypeNames(modules: readonly Module[]): string[] {
  const files = new Map<string, Set<string>>();
  for (const { file, types } of modules) {
    for (const name of types) files.set(name, (files.get(name) ?? new Set()).add(file));
  }
  return [...files]
    .filter(([, { size }]) => size > 1)
    .map(([name, where]) => `the type ${name} is declared in ${[...where].join(' and ')}; give each its own name`);
}
