import { stringify } from 'yaml';
import { admissionPolicy } from '../../config/admission.ts';
import { allowFlags } from '../../config/allow.ts';
import { formatDocumentError, parseDocuments } from '../../config/documents.ts';
import { rbacFor } from '../../config/rbac.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { KubeObject } from '../../core/object.ts';
import { gateways } from '../../gateways.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { printable } from '../../mesh/secrets.ts';
import type { RenderFlags } from '../commands/render.ts';
import type { Io } from '../declare/command.ts';
import { UsageError } from '../declare/usage-error.ts';
import { readInput } from '../terminal/input.ts';
import { adaptersWith } from './adapter-files.ts';
import { parseObjects } from './offline.ts';
import { placeholders } from './placeholders.ts';

export async function runRender(flags: RenderFlags, io: Io): Promise<number> {
  const { namespace, output } = flags;
  const files = [...flags.filename, ...flags.file];
  if (files.length === 0) throw new UsageError('-f FILE is needed');
  const adapters = await adaptersWith(flags.adapter);
  const certificates: MeshCertificate[] = [];
  let mistakes = 0;
  for (const file of files) {
    const text = await readInput(file, io);
    const { documents, errors } = parseDocuments(text, file, adapters, gateways, { namespace });
    for (const error of errors) io.stderr.write(`${formatDocumentError(error)}\n`);
    mistakes += errors.length;
    certificates.push(...documents);
  }
  if (mistakes > 0) return 1;
  if (certificates.length === 0) {
    throw new UsageError(`${files.join(', ')} holds no MeshCertificate; add at least one document`);
  }
  const objects = await objectsOf(certificates, adapters, flags, io);
  if (output === 'name') {
    for (const object of objects) io.stdout.write(`${printable(resourceName(object))}\n`);
  } else if (output === 'json') {
    io.stdout.write(`${JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }, null, 2)}\n`);
  } else {
    // Comments, so that the output can be applied as it is.
    if (flags.rbac) {
      io.stdout.write(`${printable(`# meshcert agent ${allowFlags(certificates, adapters).join(' ')}`)}\n`);
    }
    io.stdout.write(
      objects.map((object) => stringify(object, { lineWidth: 0, aliasDuplicateObjects: false })).join('---\n'),
    );
  }
  return 0;
}

async function objectsOf(
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
  flags: RenderFlags,
  io: Io,
): Promise<readonly KubeObject[]> {
  const serviceAccount = account(flags.serviceAccount, certificates[0]?.metadata.namespace ?? flags.namespace);
  const { name } = serviceAccount;
  if (flags.admissionPolicy) {
    const namespaces = [...new Set(certificates.map(({ metadata }) => metadata.namespace ?? flags.namespace))];
    return admissionPolicy({ adapters, name, serviceAccount, namespaces });
  }
  if (!flags.rbac) return await shown(certificates, adapters, flags.given, io);
  const { leaseName, shards, asFile } = flags;
  return rbacFor(certificates, {
    adapters,
    gateways,
    name,
    serviceAccount,
    leaseName,
    shards,
    resources: !asFile,
  });
}

async function shown(
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
  files: readonly string[],
  io: Io,
): Promise<readonly KubeObject[]> {
  const given: KubeObject[] = [];
  for (const file of files) {
    const text = await readInput(file, io);
    try {
      given.push(...parseObjects(text));
    } catch (cause) {
      throw new UsageError(`${file} is not YAML: ${cause instanceof Error ? cause.message.split('\n')[0] : cause}`);
    }
  }
  const { objects, remarks } = await placeholders(certificates, adapters, gateways, given, io.signal);
  for (const remark of remarks) io.stderr.write(`${printable(remark)}\n`);
  return objects;
}

function account(text: string, namespace: string): { name: string; namespace: string } {
  const [first = '', second] = text.split('/');
  return second === undefined ? { name: first, namespace } : { name: second, namespace: first };
}

/** As `kubectl -o name` prints it. */
function resourceName({ apiVersion, kind, metadata }: KubeObject): string {
  const group = apiVersion.includes('/') ? `.${apiVersion.split('/')[0]}` : '';
  return `${kind.toLowerCase()}${group}/${metadata.name}`;
}
