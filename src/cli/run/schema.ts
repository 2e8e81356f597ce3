import { stringify } from 'yaml';
import { customResourceDefinition } from '../../config/schema/crd.ts';
import { jsonSchema } from '../../config/schema/json-schema.ts';
import { gateways } from '../../gateways.ts';
import type { SchemaFlags } from '../commands/schema.ts';
import type { Io } from '../declare/command.ts';
import { adaptersWith } from './adapter-files.ts';

export async function runSchema({ adapter, crd, output }: SchemaFlags, { stdout }: Io): Promise<number> {
  const adapters = await adaptersWith(adapter);
  const format = output ?? (crd ? 'yaml' : 'json');
  const value = crd ? customResourceDefinition(adapters, gateways) : jsonSchema(adapters, gateways);
  stdout.write(format === 'json' ? `${JSON.stringify(value, null, 2)}\n` : stringify(value, { lineWidth: 0 }));
  return 0;
}
