import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { formatDocumentError, parseDocuments } from '../config/documents.ts';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { rbacFor } from '../config/rbac.ts';
import type { KubeObject } from '../core/object.ts';
import { type Command, type Io, UsageError } from './command.ts';
import { parseObjects } from './offline.ts';
import { placeholders } from './placeholders.ts';

const USAGE = `usage: meshcert render -f FILE… [--given FILE…] [--rbac] [flags]

Prints the objects that would be written for the MeshCertificates of a file,
with placeholders for certificates and keys: nothing is asked of a mesh or of a
cluster. With --rbac, prints the Roles that the agent needs for exactly these.
What a cluster would say to real ones, "meshcert agent --once --dry-run" tells.

  -f, --file FILE        MeshCertificate documents (YAML), "-" for stdin
  -n, --namespace NAME   what an omitted namespace means (default: default)
  -o, --output FORMAT    yaml or json (default yaml)
  --given FILE           what stands in the cluster, as kubectl prints it, to
                         find targets and set Mappings from: Mappings, Services,
                         EndpointSlices, Pods, ConfigMap linkerd-config. Why a
                         Mapping would be left alone is told on stderr
  --rbac                 Roles and RoleBindings instead
  --service-account NAME of the agent, as NAMESPACE/NAME if it is not in the
                         namespace of the first document (default meshcert)
  --lease-name NAME      as the agent's (default meshcert)
  --shards N             as the agent's (default 1)
  --as-file              the documents are for --config, not custom resources:
                         no rights to write their status and Events
`;

const OPTIONS = {
  file: { type: 'string', short: 'f', multiple: true },
  namespace: { type: 'string', short: 'n', default: 'default' },
  output: { type: 'string', short: 'o', default: 'yaml' },
  given: { type: 'string', multiple: true },
  rbac: { type: 'boolean', default: false },
  'service-account': { type: 'string', default: 'meshcert' },
  'lease-name': { type: 'string', default: 'meshcert' },
  shards: { type: 'string', default: '1' },
  'as-file': { type: 'boolean', default: false },
} as const;

export const render: Command = {
  name: 'render',
  summary: 'Print what would be written, or the Role that it needs',
  usage: USAGE,
  async run(argv, io) {
    const { values } = parseArgs({ args: [...argv], options: OPTIONS });
    const { namespace, output } = values;
    if (output !== 'yaml' && output !== 'json') throw new UsageError('-o must be yaml or json');
    if (values.file === undefined) throw new UsageError('-f FILE is needed');
    const shards = Number(values.shards);
    if (!Number.isInteger(shards) || shards < 1 || shards > 64) throw new UsageError('--shards must be 1 to 64');

    const certificates: MeshCertificate[] = [];
    let mistakes = 0;
    for (const file of values.file) {
      const text = file === '-' ? await stdin() : await read(file);
      const { documents, errors } = parseDocuments(text, file, adapters, { namespace });
      for (const error of errors) io.stderr.write(`${formatDocumentError(error)}\n`);
      mistakes += errors.length;
      certificates.push(...documents);
    }
    if (mistakes > 0) return 1;
    if (certificates.length === 0) {
      throw new UsageError(`${values.file.join(', ')} holds no MeshCertificate; add at least one document`);
    }
    const objects: readonly KubeObject[] = values.rbac
      ? rbacFor(certificates, {
          name: 'meshcert',
          serviceAccount: account(values['service-account'], certificates[0]?.metadata.namespace ?? namespace),
          leaseName: values['lease-name'],
          shards,
          resources: !values['as-file'],
        })
      : await shown(certificates, values.given ?? [], io);
    if (output === 'json') {
      io.stdout.write(`${JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }, null, 2)}\n`);
    } else {
      io.stdout.write(
        objects.map((object) => stringify(object, { lineWidth: 0, aliasDuplicateObjects: false })).join('---\n'),
      );
    }
    return 0;
  },
};

async function shown(
  certificates: readonly MeshCertificate[],
  files: readonly string[],
  io: Io,
): Promise<readonly KubeObject[]> {
  const given: KubeObject[] = [];
  for (const file of files) {
    const text = file === '-' ? await stdin() : await read(file);
    try {
      given.push(...parseObjects(text));
    } catch (cause) {
      throw new UsageError(`${file} is not YAML: ${cause instanceof Error ? cause.message.split('\n')[0] : cause}`);
    }
  }
  const { objects, remarks } = await placeholders(certificates, adapters, given, io.signal);
  for (const remark of remarks) io.stderr.write(`${remark}\n`);
  return objects;
}

function account(text: string, namespace: string): { name: string; namespace: string } {
  const [first = '', second] = text.split('/');
  return second === undefined ? { name: first, namespace } : { name: second, namespace: first };
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new UsageError(`cannot read ${file}: ${(cause as NodeJS.ErrnoException).code}`);
  }
}

async function stdin(): Promise<string> {
  let text = '';
  for await (const part of process.stdin.setEncoding('utf8')) text += part;
  return text;
}
