import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';
import { ROOT } from '../scripts/tree.ts';

/** Where the agent is put together: what the command line passes, what all reconcilers share, what one passes on. */
const COMPOSED = ['src/cli/agent.ts', 'src/agent/agent.ts', 'src/agent/reconciler.ts'];
/** Calls that take a value, or that other programs make without this. */
const OTHERS: Readonly<Record<string, string>> = {
  createLog: 'a level has a safe default',
  connect: 'only the agent measures its requests',
  validateObject: 'takes what a user wrote',
  declare: 'a command needs no options of its own',
  retryDelay: 'what remains of a life is a number or unknown',
};

/** The same call with one member of its argument left out or undefined. */
interface Variant {
  readonly title: string;
  readonly from: number;
  readonly to: number;
}

const nameOf = (file: string) => join(ROOT, file);
const beside = (file: string) => nameOf(file.replace(/\.ts$/, '.variants.ts'));

test('no dependency of the composed agent can be left out, nor be undefined unless production passes that', () => {
  const { config } = ts.readConfigFile(nameOf('tsconfig.json'), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const originals = COMPOSED.map((file) => {
    return ts.createSourceFile(nameOf(file), readFileSync(nameOf(file), 'utf8'), ts.ScriptTarget.Latest, true);
  });
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  const varied = new Map(COMPOSED.map((file, at) => [beside(file), variantsIn(originals[at] as ts.SourceFile)]));
  host.fileExists = (name) => varied.has(name) || fileExists(name);
  host.getSourceFile = (name, target, ...more) => {
    const text = varied.get(name)?.text;
    return text === undefined ? getSourceFile(name, target, ...more) : ts.createSourceFile(name, text, target, true);
  };
  const program = ts.createProgram([...varied.keys()], options, host);
  const accepted: string[] = [];
  let count = 0;
  for (const [name, { variants }] of varied) {
    const source = program.getSourceFile(name);
    const found = program.getSemanticDiagnostics(source);
    const errors = found.map(({ start = -1 }) => start);
    const strays = found.filter(({ start = -1 }) => !variants.some(({ from, to }) => from <= start && start < to));
    assert.deepEqual(
      strays.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' ')),
      [],
    );
    count += variants.length;
    for (const { title, from, to } of variants) {
      if (!errors.some((at) => from <= at && at < to)) accepted.push(`${name.slice(ROOT.length + 1)}: ${title}`);
    }
  }
  assert.ok(count > 150, `only ${count} variants`);
  assert.deepEqual(accepted, []);
});

/** The file with each call of a composition preceded by all variants of it. */
function variantsIn(source: ts.SourceFile): { readonly text: string; readonly variants: readonly Variant[] } {
  const whole = source.getFullText();
  const variants: Variant[] = [];
  let text = '';
  let copied = 0;
  const visit = (node: ts.Node): void => {
    const literals = argumentsOf(node);
    if (literals.length === 0) {
      ts.forEachChild(node, visit);
      return;
    }
    const [start, end] = [node.getStart(), node.getEnd()];
    text += `${whole.slice(copied, start)}(`;
    const add = (title: string, from: number, to: number, instead: string) => {
      const begin = text.length;
      text += `void (${whole.slice(start, from)}${instead}${whole.slice(to, end)}), `;
      variants.push({ title, from: begin, to: text.length });
    };
    for (const property of literals.flatMap(({ properties }) => [...properties])) {
      const name = property.name?.getText() ?? '';
      const title = `${calleeOf(node)} ${name}`;
      const comma = whole[property.end] === ',' ? 1 : 0;
      add(`${title} left out`, property.getStart(), property.end + comma, '');
      if (mayBeUndefined.has(title)) continue;
      add(`${title} undefined`, property.getStart(), property.end, `${name}: undefined`);
    }
    text += `${whole.slice(start, end)})`;
    copied = end;
  };
  visit(source);
  return { text: text + whole.slice(copied), variants };
}

/** What production passes as undefined itself, with the meaning of that. */
const mayBeUndefined = new Map([
  ['certificateSource once', 'it runs until it is stopped'],
  ['RouteKeeper targeting', 'one identity serves the whole mesh'],
]);

function argumentsOf(node: ts.Node): ts.ObjectLiteralExpression[] {
  if (!ts.isNewExpression(node) && !(ts.isCallExpression(node) && ts.isIdentifier(node.expression))) return [];
  if (calleeOf(node) in OTHERS) return [];
  return (node.arguments ?? []).flatMap((one) => (ts.isObjectLiteralExpression(one) ? one : []));
}

const calleeOf = (node: ts.Node): string =>
  ts.isNewExpression(node) || ts.isCallExpression(node) ? node.expression.getText() : '';
