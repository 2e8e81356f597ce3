import { COMMANDS } from '../../src/cli/commands.ts';
import { main } from '../../src/cli/main.ts';
import { VERSION as SOURCE_VERSION } from '../../src/cli/program.ts';
import { VERSION } from '../image/content.ts';

/** docs/reference/commands.md: the output of `--help`, for the program and each command. */
export async function renderCommands(): Promise<string> {
  const overview = await help();
  const sections: string[] = [];
  for (const { name } of COMMANDS) sections.push(`## meshcert ${name}\n\n${fence(await help(name))}`);
  return `# Commands

Generated from the declarations of the commands by \`npm run gen\`. With \`kubectl-meshcert\` on the path, each is also
\`kubectl meshcert COMMAND\`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

Flags follow kubectl: \`-o=json\` is \`-o json\`, \`--watch=true\` is \`--watch\`, and cluster flags such as \`-n\` may also come
before the command.

${fence(overview)}
${sections.join('\n')}`;
}

async function help(...name: readonly string[]): Promise<string> {
  let text = '';
  const output = { write: (part: string) => (text += part) };
  await main([...name, '--help'], { stdout: output, stderr: output, env: {}, signal: new AbortController().signal });
  return text.replaceAll(SOURCE_VERSION, VERSION);
}

const fence = (text: string): string => `\`\`\`text\n${text.trimEnd()}\n\`\`\`\n`;
