import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path/posix';
import ts from 'typescript';
import { filesBelow } from '../tree.ts';
import { cyclesOf } from './cycles.ts';

const FORBIDDEN_NAME = /^(utils?|helpers?|common|managers?|misc)$/;

/** Exceptions to the rules, each with its reason. A reason that no longer applies is a finding too. */
export interface Allowed {
  /** Names of types that mean the same in each of the files that declare them. */
  readonly typeNames: Readonly<Record<string, string>>;
  /** Folders with the name of a module, which import rules would mistake for it. */
  readonly moduleNames: Readonly<Record<string, string>>;
}

interface Module {
  readonly file: string;
  /** Files that are loaded with it, type-only ones too; not those that import() loads on demand. */
  readonly imports: readonly string[];
  readonly types: readonly string[];
}

const isProduct = (file: string): boolean =>
  file.endsWith('.ts') && !/\.(test|fixture)\.ts$/.test(file) && !file.includes('/gen/');

/** Returns what violates the rules on names or the absence of cycles, in src and adapters. */
export function structureFindings(root: string, allowed: Allowed): string[] {
  const modules = filesBelow(root, 'src', 'adapters')
    .filter(isProduct)
    .map((file) => moduleOf(file, readFileSync(join(root, file), 'utf8')));
  return [...cycles(modules), ...names(modules, allowed.moduleNames), ...sharedTypeNames(modules, allowed.typeNames)];
}

function moduleOf(file: string, text: string): Module {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest);
  const imports = new Set<string>();
  const add = (node: ts.Node | undefined) => {
    if (node && ts.isStringLiteral(node) && node.text.startsWith('.')) imports.add(join(dirname(file), node.text));
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) add(node.moduleSpecifier);
    if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return {
    file,
    imports: [...imports],
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
