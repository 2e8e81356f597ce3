import { FORMATS } from '../../doctor/report.ts';
import { SEVERITIES } from '../../mesh/object-check.ts';
import { CLUSTER_FLAGS } from '../declare/cluster-flags.ts';
import { declare } from '../declare/command.ts';
import { bool, choice, duration, text, texts, type Values } from '../declare/flags.ts';

const flags = {
  filename: texts(
    '-f, --filename <path>',
    'Judge this file, all manifests below this directory, or "-" for standard input, instead of a cluster',
  ).offers('files'),
  output: choice('-o, --output <format>', 'Output format', FORMATS, 'text'),
  failOn: choice('--fail-on <severity>', 'Least severity that makes the exit code 1', SEVERITIES, 'error'),
  ambassadorId: text('--ambassador-id <id>', 'ID of the gateway, where its Deployment does not name it'),
  gatewayNamespace: text(
    '--gateway-namespace <name>',
    'Namespace of the gateway, where its Deployment does not show it',
  ).offers('namespaces'),
  list: bool('--list', 'List the checks'),
  pre: bool('--pre', 'Look whether meshcert can be installed: API server, rights, gateway, mesh').conflicts('filename'),
  issue: bool('--no-issue', 'Request no certificates from the meshes, for CAs that count them'),
  agent: choice(
    '--agent <which>',
    'With "none", no agent runs in this cluster, and your own rights count for it',
    ['auto', 'none'] as const,
    'auto',
  ),
  timeout: duration('--timeout <duration>', 'Time limit of each step', '10s', '100ms'),
  ...CLUSTER_FLAGS,
};

export type DoctorFlags = Values<typeof flags>;

export const doctor = declare({
  name: 'doctor',
  summary: 'Find what will hurt, in a cluster or in files to be applied',
  description:
    'Finds what breaks mTLS or will break it: contexts that fall back to plaintext, pairs that freeze the gateway, an ' +
    'agent that does not run, does not lead or lacks a right, a mesh that does not issue. Reads a cluster, or files ' +
    'before they are applied. Tries each mesh as the agent would, and throws the certificate away. Changes nothing. ' +
    'With --namespace it judges this namespace alone. docs/doctor.md and docs/checks.md explain each code.',
  flags,
  examples: [
    { does: 'Judge the whole cluster', line: 'meshcert doctor' },
    { does: 'Look before anything is installed', line: 'meshcert doctor --pre' },
    { does: 'Judge manifests in a pull request', line: 'meshcert doctor -f deploy/ --fail-on warning -o sarif' },
    { does: 'Judge what Helm would apply', line: 'helm template edge ./chart | meshcert doctor -f -' },
  ],
  exitCodes:
    '0  nothing at or above the severity of --fail-on was found\n' +
    '1  something was found, the API server does not answer, or a file is not YAML\n2  wrong usage',
  run: async ({ flags }, io) => (await import('../run/doctor.ts')).runDoctor(flags, io),
});
