import { stringify } from 'yaml';
import { customResourceDefinition, jsonSchema } from '../config/schema/crd.ts';
import { gateways } from '../gateways.ts';
import { adaptersWith } from './adapter-files.ts';
import { adapterFlag, bool, choice, type Values } from './flags.ts';
import { declare, type Io } from './program.ts';

const flags = {
  adapter: adapterFlag(),
  crd: bool('--crd', 'Print the CustomResourceDefinition instead'),
  output: choice('-o, --output <format>', 'Output format (default: json, with --crd yaml)', ['json', 'yaml']),
};

export type SchemaFlags = Values<typeof flags>;

export const schema = declare({
  name: 'schema',
  description:
    'Prints the JSON schema of MeshCertificate documents, for editors and for checks of pull requests; with --crd, the ' +
    'CustomResourceDefinition.',
  flags,
  examples: [
    { does: 'Install the CustomResourceDefinition', line: 'meshcert schema --crd | kubectl apply -f -' },
    { does: 'Save the JSON schema for an editor', line: 'meshcert schema > mesh-certificate.schema.json' },
  ],
  run: async ({ flags }, io) => runSchema(flags, io),
});

export async function runSchema({ adapter, crd, output }: SchemaFlags, { stdout }: Io): Promise<number> {
  const adapters = await adaptersWith(adapter);
  const format = output ?? (crd ? 'yaml' : 'json');
  const value = crd ? customResourceDefinition(adapters, gateways) : jsonSchema(adapters, gateways);
  stdout.write(format === 'json' ? `${JSON.stringify(value, null, 2)}\n` : stringify(value, { lineWidth: 0 }));
  return 0;
}
