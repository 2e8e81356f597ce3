import { adapterFlag } from '../declare/adapter-flag.ts';
import { CLUSTER_FLAGS } from '../declare/cluster-flags.ts';
import { declare } from '../declare/command.ts';
import { choice, hostAndPort, parsed, text, type Values } from '../declare/flags.ts';

const flags = {
  adapter: adapterFlag(),
  address: parsed(
    '--address <host:port>',
    'Upstream (default: spec.probe.address of the MeshCertificate)',
    hostAndPort,
  ),
  id: text('--id <id>', 'SPIFFE ID or DNS name that the upstream must present'),
  sni: text('--sni <name>', 'Server name to send'),
  http: parsed('--http <path>', 'Path of a GET request to send as well', pathOf),
  secret: text('--secret <name>', 'Identity Secret, instead of a MeshCertificate'),
  caSecret: text('--ca-secret <name>', 'Secret with the trust bundle (default: ca.crt of the Secret)'),
  output: choice('-o, --output <format>', 'Output format', ['text', 'json'], 'text'),
  ...CLUSTER_FLAGS,
};

export type ProbeFlags = Values<typeof flags>;

export const probe = declare({
  name: 'probe',
  summary: 'Try a published certificate on a real upstream',
  description:
    'Connects to a real upstream with a published certificate, as the gateway would, and checks the name of the upstream, which ' +
    'the gateway may not be able to.',
  usage: ['NAME [flags]', '--secret NAME --address HOST:PORT [flags]'],
  parameters: [{ name: 'name', description: 'MeshCertificate', completes: 'certificates', replacedBy: ['secret'] }],
  flags,
  examples: [
    { does: 'Try the upstream that the MeshCertificate names', line: 'meshcert probe mesh -n emissary' },
    {
      does: 'Try another upstream, and require its name',
      line: 'meshcert probe mesh --address web.shop:443 \\\n  --id spiffe://cluster.local/ns/shop/sa/web',
    },
    {
      does: 'Try a Secret, with a request',
      line: 'meshcert probe --secret mesh-identity --address web.shop:443 --http /healthz',
    },
  ],
  exitCodes: '0  the upstream accepts the certificate\n1  it does not, or there is no certificate\n2  wrong usage',
  run: async ({ flags, args }, io) => (await import('../run/probe.ts')).runProbe(flags, args, io),
});

function pathOf(text: string): string {
  if (!text.startsWith('/') || /\s/.test(text)) throw new Error('expected a path such as /healthz');
  return text;
}
