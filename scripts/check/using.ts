import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { trackedBelow } from '../tree.ts';

/**
 * Finds a `using` in a block whose errors are caught in the same loop. esbuild keeps the error of one iteration in a
 * variable of the function and throws it again at the end of each later one. Move the block into a function.
 */
export function usingCaughtInLoops(root: string): string[] {
  return trackedBelow(root, 'src', 'adapters', 'sandbox', 'test', 'scripts')
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) =>
      linesOf(readFileSync(join(root, file), 'utf8')).map(
        (line) => `${file}:${line}: \`using\` in a loop that catches what its block throws; put it into a function`,
      ),
    );
}

export function linesOf(text: string): number[] {
  const source = ts.createSourceFile('file.ts', text, ts.ScriptTarget.Latest, true);
  const lines: number[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isVariableDeclarationList(node) && node.flags & ts.NodeFlags.Using && isCaughtInLoop(node)) {
      lines.push(source.getLineAndCharacterOfPosition(node.getStart()).line + 1);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return lines;
}

function isCaughtInLoop(start: ts.Node): boolean {
  let isCaught = false;
  for (let node = start; node.parent && !ts.isFunctionLike(node); node = node.parent) {
    const { parent } = node;
    if (ts.isTryStatement(parent) && parent.tryBlock === node && parent.catchClause) isCaught = true;
    if (isCaught && ts.isIterationStatement(node, false)) return true;
  }
  return false;
}
