import { FORMATS } from '../../doctor/report.ts';
import { SEVERITIES } from '../../mesh/object-check.ts';
import { adapterFlag } from '../declare/adapter-flag.ts';
import { CLUSTER_FLAGS } from '../declare/cluster-flags.ts';
import { declare } from '../declare/command.ts';
import { bool, choice, duration, text, texts, type Values } from '../declare/flags.ts';

const flags = {
  filename: texts(
    '-f, --filename <path>',
    'Check this file, all manifests below this directory, or "-" for standard input, instead of a cluster',
  ).offers('files'),
  output: choice('-o, --output <format>', 'Output format', FORMATS, 'text'),
  failOn: choice('--fail-on <severity>', 'Lowest severity that makes the exit code 1', SEVERITIES, 'error'),
  ambassadorId: text('--ambassador-id <id>', 'ID of the gateway, where its Deployment does not name it'),
  gatewayNamespace: text(
    '--gateway-namespace <name>',
    'Namespace of the gateway, where its Deployment does not show it',
  ).offers('namespaces'),
  list: bool('--list', 'List the checks'),
  pre: bool('--pre', 'Check whether meshcert can be installed: API server, rights, gateway, mesh').conflicts(
    'filename',
  ),
  issue: bool('--no-issue', 'Request no certificates from the meshes, for CAs that limit or charge for them'),
  agent: choice(
    '--agent <which>',
    'With "none", no agent runs in this cluster, and doctor checks your own rights instead',
    ['auto', 'none'] as const,
    'auto',
  ),
  timeout: duration('--timeout <duration>', 'Time limit of each step', '10s', '100ms'),
  adapter: adapterFlag(),
  ...CLUSTER_FLAGS,
};

export type DoctorFlags = Values<typeof flags>;

export const doctor = declare({
  name: 'doctor',
  summary: 'Find problems in a cluster, or in files before you apply them',
  description:
    'Finds what breaks mTLS or will break it: routes that fall back to plaintext, pairs that block the gateway, an ' +
    'agent that does not run, does not lead or lacks a right, a mesh that does not issue. Reads a cluster, or files ' +
    'before they are applied. Tries each mesh as the agent would, and discards the certificate. Changes nothing. ' +
    'With --namespace it checks only this namespace. docs/doctor.md and docs/checks.md explain each code.',
  flags,
  examples: [
    { does: 'Check the whole cluster', line: 'meshcert doctor' },
    { does: 'Check before anything is installed', line: 'meshcert doctor --pre' },
    { does: 'Check manifests in a pull request', line: 'meshcert doctor -f deploy/ --fail-on warning -o sarif' },
    { does: 'Check what Helm would apply', line: 'helm template edge ./chart | meshcert doctor -f -' },
  ],
  exitCodes:
    '0  nothing at or above the severity of --fail-on was found\n' +
    '1  something was found, the API server does not answer, or a file is not YAML\n2  wrong usage',
  run: async ({ flags }, io) => (await import('../run/doctor.ts')).runDoctor(flags, io),
});
