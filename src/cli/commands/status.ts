import { CLUSTER_FLAGS } from '../declare/cluster-flags.ts';
import { CERTIFICATE_NAMES, declare } from '../declare/command.ts';
import { bool, choice, parsed, text, type Values } from '../declare/flags.ts';

const flags = {
  allNamespaces: bool('-A, --all-namespaces', 'Show all namespaces'),
  selector: text('-l, --selector <query>', 'Show those with these labels, such as team=web,env!=test').conflicts('url'),
  output: choice('-o, --output <format>', 'Output format', ['wide', 'json', 'yaml', 'name']),
  watch: bool('-w, --watch', 'Show changes until interrupted'),
  exitCode: bool('--exit-code', 'Exit with 1 unless everything shown is ready'),
  url: parsed(
    '--url <url>',
    'Ask an agent, such as http://127.0.0.1:9464, instead of the cluster; for an agent that runs from a file',
    agentUrl,
  ),
  ...CLUSTER_FLAGS,
};

export type StatusFlags = Values<typeof flags>;

export const status = declare({
  name: 'status',
  summary: 'Show what is published, until when, and what is wrong',
  description:
    'Shows for each MeshCertificate what is published, until when, and what is wrong. Below the table it prints the ' +
    'messages of those that are not ready.',
  parameters: [CERTIFICATE_NAMES],
  flags,
  examples: [
    { does: 'Show the MeshCertificates of all namespaces, with more columns', line: 'meshcert status -A -o wide' },
    { does: 'Follow one until you press Ctrl-C', line: 'meshcert status mesh -n emissary --watch' },
    { does: 'Fail in a script unless everything is ready', line: 'meshcert status -A --exit-code' },
    { does: 'Ask an agent that runs from a file', line: 'meshcert status --url http://127.0.0.1:9464' },
  ],
  run: async ({ flags, args }, io) => (await import('../status/status.ts')).runStatus(flags, args, io),
});

function agentUrl(text: string): URL {
  if (!text.startsWith('http://') || !URL.canParse(text)) {
    throw new Error('expected http://host:port, such as http://127.0.0.1:9464');
  }
  return new URL('/api/status', text);
}
