import assert from 'node:assert/strict';
import { test } from 'node:test';
import ts from 'typescript';
import { spreadsIn } from './spreads.ts';

const DECLARED = `
interface Clock { now(): number }
type Share = (key: string) => void;
interface Env { readonly clock: Clock; readonly name: string }
declare const env: Env;
declare const maybe: { readonly share?: Share | undefined } | undefined;
declare const value: { readonly name: string; readonly at: number };
declare class Rig { #env: Env }
`;

function linesOf(code: string): string[] {
  const options = { noLib: true, target: ts.ScriptTarget.ESNext };
  const text = `${DECLARED}${code}`;
  const source = ts.createSourceFile('file.ts', text, options.target, true);
  const program = ts.createProgram(['file.ts'], options, {
    ...ts.createCompilerHost(options),
    getSourceFile: (name) => (name === 'file.ts' ? source : undefined),
  });
  return spreadsIn(source, program.getTypeChecker()).map((found) => found.replace(/^\d+: /, ''));
}

test('a spread of an object that carries a dependency is found, wherever it comes from', () => {
  const why = 'carries the dependency clock; hand over each member by its name';
  assert.deepEqual(linesOf('use({ ...env, name: "a" });'), [`\`...env\` ${why}`]);
  assert.deepEqual(linesOf('class A { #env = env; b() { return { ...this.#env }; } }'), [`\`...this.#env\` ${why}`]);
  assert.deepEqual(linesOf('const rest = { ...maybe };'), [
    '`...maybe` carries the dependency share; hand over each member by its name',
  ]);
});

test('a spread of a literal is found', () => {
  assert.deepEqual(linesOf('const a = { ...{ b: 1, c: 2 } };'), [
    '`...{ b: 1, c: 2 }` spreads a literal; write its members',
  ]);
});

test('a spread of a value, of a conditional member, or of a list is no finding', () => {
  assert.deepEqual(linesOf('const a = { ...value, ...(value.at > 1 && { b: 1 }) }; const c = [...list];'), []);
});
