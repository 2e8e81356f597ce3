import { CLUSTER_FLAGS } from '../declare/cluster-flags.ts';
import { declare } from '../declare/command.ts';
import { choice, duration, parsed, text, texts, type Values } from '../declare/flags.ts';

const flags = {
  filename: texts('-f, --filename <file>', 'PEM file, "-" for standard input').offers('files'),
  ca: texts('--ca <file>', 'Roots to verify under (default: those in the files)').offers('files'),
  caSecret: text('--ca-secret <name>', 'Secret with the roots (default: ca.crt of the Secret itself)'),
  id: text('--id <id>', 'SPIFFE ID or DNS name that the leaf must carry'),
  trustDomain: text('--trust-domain <name>', 'Trust domain that the leaf must be in'),
  form: choice('--form <form>', 'How the mesh names workloads (default: as the leaf does)', ['spiffe', 'dns']),
  at: parsed('--at <time>', 'Check as if it were this time (RFC 3339)', timeOf),
  certificateName: text('--certificate-name <name>', 'Certificate to request from the socket (default: default)'),
  bundleName: text('--bundle-name <name>', 'Bundle to request from the socket (default: ROOTCA)'),
  timeout: duration('--timeout <duration>', 'How long to wait for the first answer of the socket', '10s'),
  output: choice('-o, --output <format>', 'Output format', ['text', 'json'], 'text'),
  ...CLUSTER_FLAGS,
};

export type InspectFlags = Values<typeof flags>;

export const inspect = declare({
  name: 'inspect',
  summary: 'Explain a PEM file, a Secret or a live SDS socket',
  description:
    'Explains certificates: what they are, and the result of each check that a pair must pass before it is published. ' +
    'The last one is a handshake, in which OpenSSL judges the pair. ' +
    'Checks that need something you did not give, such as roots or an expected name, are marked as skipped.',
  usage: ['FILE... [--ca FILE] [flags]', 'secret NAME [--ca-secret NAME] [flags]', 'sds SOCKET [flags]'],
  parameters: [
    {
      name: 'what',
      description: 'Files, "secret NAME", or "sds SOCKET"',
      variadic: true,
      completes: 'files',
      after: { secret: undefined, sds: 'files' },
    },
  ],
  flags,
  examples: [
    {
      does: 'Check a chain and its key against the roots of another file',
      line: 'meshcert inspect pair.pem --ca roots.pem',
    },
    {
      does: 'Check what is published',
      line: 'meshcert inspect secret mesh-identity -n emissary --ca-secret mesh-ca',
    },
    {
      does: 'Read PEM from standard input',
      line: 'openssl s_client -connect web.shop:443 -showcerts </dev/null |\n  meshcert inspect -f -',
    },
    {
      does: 'Show what the SDS socket of a pod serves',
      line: 'meshcert inspect sds /var/run/secrets/workload-spiffe-uds/socket',
    },
  ],
  exitCodes: '0  every check that was made passed\n1  a check failed, or there was nothing to read\n2  wrong usage',
  run: async ({ flags, args }, io) => (await import('../inspect/inspect.ts')).runInspect(flags, args, io),
});

function timeOf(text: string): number {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new Error('expected a time such as 2026-01-31T12:00:00Z');
  return ms;
}
