import { main } from '../../src/cli/main.ts';

/** docs/reference/commands.md: what `--help` says, of the whole and of each command. */
export async function renderCommands(): Promise<string> {
  const overview = await help();
  const sections: string[] = [];
  for (const [, name = ''] of overview.matchAll(/^ {2}([a-z]+) {2}/gm))
    sections.push(`## meshcert ${name}\n\n${fence(await help(name))}`);
  return `# Commands

Generated from the commands' own help by \`npm run gen\`. With \`kubectl-meshcert\` on the path, each is also
\`kubectl meshcert COMMAND\`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

${fence(overview)}
${sections.join('\n')}`;
}

async function help(...name: readonly string[]): Promise<string> {
  let text = '';
  const output = { write: (part: string) => (text += part) };
  await main([...name, '--help'], { stdout: output, stderr: output, env: {}, signal: new AbortController().signal });
  return text;
}

const fence = (text: string): string => `\`\`\`text\n${text.trimEnd()}\n\`\`\`\n`;
