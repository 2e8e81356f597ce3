import { parseArgs } from 'node:util';
import { stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { customResourceDefinition } from '../config/crd.ts';
import { jsonSchema } from '../config/json-schema.ts';
import { type Command, UsageError } from './command.ts';

const USAGE = `usage: meshcert schema [--crd] [flags]

Prints the JSON schema of MeshCertificate documents, for editors and for checks
of pull requests; with --crd, the CustomResourceDefinition to apply.

  --crd                  the CustomResourceDefinition instead
  -o, --output FORMAT    json or yaml (default: json, with --crd yaml)

  meshcert schema --crd | kubectl apply -f -
`;

export const schema: Command = {
  name: 'schema',
  summary: 'Print the JSON schema or the CustomResourceDefinition',
  usage: USAGE,
  async run(argv, { stdout }) {
    const { values } = parseArgs({
      args: [...argv],
      options: { crd: { type: 'boolean', default: false }, output: { type: 'string', short: 'o' } },
    });
    const format = values.output ?? (values.crd ? 'yaml' : 'json');
    if (format !== 'json' && format !== 'yaml') throw new UsageError('-o must be json or yaml');
    const value = values.crd ? customResourceDefinition(adapters) : jsonSchema(adapters);
    stdout.write(format === 'json' ? `${JSON.stringify(value, null, 2)}\n` : stringify(value, { lineWidth: 0 }));
    return 0;
  },
};
