import { join } from 'node:path';
import ts from 'typescript';
import { trackedBelow } from '../tree.ts';

/**
 * Finds spreads of objects that carry dependencies, such as `{ ...env, namespace }`: a member that was renamed on one
 * side is then missing on the other, and the compiler says nothing. Hand over each member by its name, or the whole
 * object as one. `...{ a, b }` is a finding too: write its members.
 */
export function spreadFindings(root: string): string[] {
  const { options } = ts.parseJsonConfigFileContent(
    ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile).config,
    ts.sys,
    root,
  );
  const files = trackedBelow(root, 'src', 'adapters').filter(
    (file) => file.endsWith('.ts') && !/\.(test|fixture)\.ts$|\/gen\//.test(file),
  );
  const program = ts.createProgram(
    files.map((file) => join(root, file)),
    options,
  );
  return files.flatMap((file) => {
    const source = program.getSourceFile(join(root, file));
    return source ? spreadsIn(source, program.getTypeChecker()).map((found) => `${file}:${found}`) : [];
  });
}

export function spreadsIn(source: ts.SourceFile, checker: ts.TypeChecker): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isSpreadAssignment(node)) {
      const { line } = source.getLineAndCharacterOfPosition(node.getStart());
      const report = (why: string) => found.push(`${line + 1}: \`${node.getText()}\` ${why}`);
      if (ts.isObjectLiteralExpression(node.expression)) report('spreads a literal; write its members');
      else {
        const [name] = dependenciesOf(checker.getTypeAtLocation(node.expression), checker);
        if (name !== undefined) report(`carries the dependency ${name}; hand over each member by its name`);
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** The types of which an object of dependencies has at least one. */
const DEPENDENCIES = new Set(['AllowList', 'Clock', 'Fence', 'Host', 'Kube', 'Leadership', 'Log', 'Runtime', 'Share']);

function dependenciesOf(type: ts.Type, checker: ts.TypeChecker): string[] {
  return checker.getPropertiesOfType(checker.getNonNullableType(type)).flatMap((member) => {
    const found = checker.getNonNullableType(checker.getTypeOfSymbol(member));
    return DEPENDENCIES.has((found.aliasSymbol ?? found.getSymbol())?.name ?? '') ? member.name : [];
  });
}
