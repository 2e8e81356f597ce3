import { declare } from '../declare/command.ts';
import { UsageError } from '../declare/usage-error.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

export const completion = declare({
  name: 'completion',
  summary: 'Print a completion script for bash, zsh or fish',
  description:
    'Prints a completion script for a shell. For "kubectl meshcert", put kubectl_complete-meshcert, a link to meshcert, ' +
    "on the PATH beside kubectl-meshcert; kubectl's own completion then asks it.",
  usage: [SHELLS.join('|')],
  parameters: [{ name: 'shell', description: 'bash, zsh or fish', required: true, choices: SHELLS }],
  flags: {},
  examples: [
    {
      does: 'Load it into this bash or zsh',
      line: 'source <(meshcert completion bash)\nsource <(meshcert completion zsh)',
    },
    { does: 'Install it for bash', line: 'meshcert completion bash > /etc/bash_completion.d/meshcert' },
    { does: 'Install it for zsh', line: `meshcert completion zsh > "\${fpath[1]}/_meshcert"` },
    { does: 'Install it for fish', line: 'meshcert completion fish > ~/.config/fish/completions/meshcert.fish' },
  ],
  run: async ({ args }, io) => {
    const shell = SHELLS.find((known) => known === args[0]);
    if (!shell) throw new UsageError(`there is no completion for ${args[0]}; expected ${SHELLS.join(', ')}`);
    return (await import('../completion/completion.ts')).runCompletion(shell, io);
  },
});
