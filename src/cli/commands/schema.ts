import { adapterFlag } from '../declare/adapter-flag.ts';
import { declare } from '../declare/command.ts';
import { bool, choice, type Values } from '../declare/flags.ts';

const flags = {
  adapter: adapterFlag(),
  crd: bool('--crd', 'Print the CustomResourceDefinition instead'),
  output: choice('-o, --output <format>', 'Output format (default: json, with --crd yaml)', ['json', 'yaml']),
};

export type SchemaFlags = Values<typeof flags>;

export const schema = declare({
  name: 'schema',
  summary: 'Print the JSON schema or the CustomResourceDefinition',
  description:
    'Prints the JSON schema of MeshCertificate documents, for editors and for checks of pull requests; with --crd, the ' +
    'CustomResourceDefinition.',
  flags,
  examples: [
    { does: 'Install the CustomResourceDefinition', line: 'meshcert schema --crd | kubectl apply -f -' },
    { does: 'Save the JSON schema for an editor', line: 'meshcert schema > mesh-certificate.schema.json' },
  ],
  run: async ({ flags }, io) => (await import('../run/schema.ts')).runSchema(flags, io),
});
