import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path/posix';
import ts from 'typescript';
import { trackedBelow } from '../tree.ts';

/** Smaller files are often parts of a subject that is elsewhere. */
const SMALL_LINES = 40;

/** Lines of what ships, and how it is divided; CONTRIBUTING.md says how to read the numbers. Nothing is limited. */
export function sizes(root: string): string[] {
  const files = trackedBelow(root, 'src', 'adapters').filter(
    (file) => !file.endsWith('.test.ts') && !file.includes('/gen/'),
  );
  const texts = new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]));
  const lines = [...texts.values()].map((text) => text.split('\n').length - 1);
  const importers = importersOf(texts);
  const numbers: readonly (readonly [number, string])[] = [
    [lines.reduce((sum, count) => sum + count, 0), 'lines that ship'],
    [files.length, 'files that ship'],
    [lines.filter((count) => count < SMALL_LINES).length, `files under ${SMALL_LINES} lines`],
    [importers.length, 'exports'],
    [importers.filter((count) => count === 1).length, 'exports that a single file imports'],
  ];
  return numbers.map(([count, what]) => `${count.toLocaleString('en').padStart(6)}  ${what}`);
}

interface Source {
  readonly file: string;
  readonly text: string;
  readonly exports: readonly string[];
  /** The file that is imported, and the name; no name: as a whole. */
  readonly imports: readonly { readonly from: string; readonly name?: string }[];
}

/** For each export of these modules, how many of them import it. A re-export is an import, and no export. */
function importersOf(texts: ReadonlyMap<string, string>): number[] {
  const sources = [...texts].filter(([file]) => file.endsWith('.ts')).map(([file, text]) => sourceOf(file, text));
  const importers = new Map<string, Set<string>>();
  for (const { file, text, imports } of sources) {
    for (const { from, name } of imports) {
      const names = sources.find((source) => source.file === from)?.exports ?? [];
      // From a module that is imported as a whole, what the text mentions.
      for (const used of names.filter((one) => (name === undefined ? text.includes(one) : one === name))) {
        const key = `${from} ${used}`;
        importers.set(key, (importers.get(key) ?? new Set()).add(file));
      }
    }
  }
  return sources.flatMap(({ file, exports }) => exports.map((name) => importers.get(`${file} ${name}`)?.size ?? 0));
}

function sourceOf(file: string, text: string): Source {
  const exports = new Set<string>();
  const imports: { from: string; name?: string }[] = [];
  const add = (specifier: ts.Node | undefined, names?: readonly ts.ImportOrExportSpecifier[]) => {
    if (!specifier || !ts.isStringLiteral(specifier)) return;
    const from = join(dirname(file), specifier.text);
    if (!names) imports.push({ from });
    for (const { name, propertyName } of names ?? []) imports.push({ from, name: (propertyName ?? name).text });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      const bound = node.importClause?.namedBindings;
      if (bound) add(node.moduleSpecifier, ts.isNamedImports(bound) ? bound.elements : undefined);
    } else if (ts.isExportDeclaration(node)) {
      const clause = node.exportClause;
      add(node.moduleSpecifier, clause && ts.isNamedExports(clause) ? clause.elements : undefined);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) add(node.arguments[0]);
    ts.forEachChild(node, visit);
  };
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  visit(source);
  for (const node of source.statements) {
    if (!ts.canHaveModifiers(node)) continue;
    if (!ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)) continue;
    const declared = ts.isVariableStatement(node) ? node.declarationList.declarations : [node as ts.NamedDeclaration];
    for (const { name } of declared) if (name) exports.add(name.getText(source));
  }
  return { file, text, exports: [...exports], imports };
}
