import { adapterFlag } from '../declare/adapter-flag.ts';
import { declare } from '../declare/command.ts';
import { bool, choice, integer, text, texts, type Values } from '../declare/flags.ts';

const flags = {
  filename: texts('-f, --filename <path>', 'MeshCertificate documents (YAML), "-" for standard input').offers('files'),
  file: texts('--file <path>', 'Older name of --filename').offers('files').hideHelp(),
  namespace: text('-n, --namespace <name>', 'Namespace of documents without one', 'default').offers('namespaces'),
  output: choice('-o, --output <format>', 'Output format', ['yaml', 'json', 'name'], 'yaml'),
  given: texts(
    '--given <path>',
    'Objects of the cluster, as kubectl prints them, to find targets and set routes from: routes, Services, ' +
      'EndpointSlices, Pods, ConfigMaps of the mesh. The reason why a route cannot use the certificate goes to standard error',
  ).offers('files'),
  adapter: adapterFlag(),
  rbac: bool('--rbac', 'Print Roles and RoleBindings instead'),
  admissionPolicy: bool(
    '--admission-policy',
    'Print a ValidatingAdmissionPolicy instead, for the namespaces of the documents: who creates a MeshCertificate or ' +
      'changes its spec must be allowed to mint tokens for the ServiceAccount that it uses',
  ).conflicts('rbac'),
  serviceAccount: text(
    '--service-account <name>',
    'ServiceAccount of the agent, as NAMESPACE/NAME if it is not in the namespace of the first document',
    'meshcert',
  ),
  leaseName: text('--lease-name <name>', 'Lease of the agent', 'meshcert'),
  shards: integer('--shards <n>', 'Shards of the agent', 1, 1, 64),
  asFile: bool(
    '--as-file',
    'The documents are for --config, not custom resources: no rights to write status and Events',
  ),
};

export type RenderFlags = Values<typeof flags>;

export const render = declare({
  name: 'render',
  summary: 'Print what would be written, or the Role that it needs',
  description:
    'Prints the objects that would be written for the MeshCertificates of a file, with placeholders for certificates and ' +
    'keys. It connects to neither a mesh nor a cluster. With --rbac it prints the Roles that the agent needs for exactly ' +
    'these MeshCertificates. To check the real objects against a cluster, use "meshcert agent --once --dry-run".',
  usage: ['-f FILE [flags]'],
  flags,
  examples: [
    { does: 'Print what would be published', line: 'meshcert render -f mesh.yaml' },
    { does: 'Apply the Roles that the agent needs', line: 'meshcert render -f mesh.yaml --rbac | kubectl apply -f -' },
    {
      does: 'Include the targets and routes of a cluster',
      line:
        'kubectl get mappings,services,endpointslices,pods -A -o yaml > cluster.yaml\n' +
        'meshcert render -f mesh.yaml --given cluster.yaml',
    },
  ],
  run: async ({ flags }, io) => (await import('../run/render.ts')).runRender(flags, io),
});
