import { parseAllDocuments, stringify } from 'yaml';
import { systemClock } from '../async/clock.ts';
import { admissionPolicy } from '../config/admission.ts';
import { allowFlags } from '../config/allow.ts';
import { formatDocumentError, parseDocuments } from '../config/documents.ts';
import { rbacFor } from '../config/rbac.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { desiredObjects } from '../gateway/desired.ts';
import {
  type Gateway,
  type GatewayUse,
  gatewaysOf,
  type ObservedObjects,
  type RouteInput,
  type RouteVerdict,
  type Scope,
} from '../gateway/gateway.ts';
import { gateways } from '../gateways.ts';
import { type Adapter, tlsDefaults } from '../mesh/adapter.ts';
import type { TargetRules } from '../mesh/cluster.ts';
import { offlineHost, offlineRules } from '../mesh/offline-host.ts';
import { printable } from '../mesh/secrets.ts';
import { describe, fields, type KubeObject, refOf } from '../objects/objects.ts';
import { parseCertificates } from '../pki/certificate.ts';
import { throwawayPair } from '../pki/csr.ts';
import { PrivateKey } from '../pki/key.ts';
import { adaptersWith } from './adapter-files.ts';
import { adapterFlag, bool, choice, integer, text, texts, UsageError, type Values } from './flags.ts';
import { declare, type Io } from './program.ts';
import { readInput } from './terminal.ts';

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
  run: async ({ flags }, io) => runRender(flags, io),
});

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

export interface Placeholders {
  readonly objects: readonly KubeObject[];
  /** Why routes would not be changed, and what could not be determined, one line each. */
  readonly remarks: readonly string[];
}

/**
 * The objects of each MeshCertificate in their order of writing, made by the same function as the real ones from a
 * throw-away identity, of which nothing remains: each value of a Secret is a description of the real one. Routes are
 * judged from `given`, the observed objects.
 */
export async function placeholders(
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
  gateways: readonly Gateway[],
  given: readonly KubeObject[],
  signal: AbortSignal,
): Promise<Placeholders> {
  const { key, cert } = throwawayPair();
  const chain = parseCertificates(cert);
  const identity = { id: 'spiffe://placeholder/x', key: PrivateKey.fromPem(key), chain, roots: chain };
  const objects: KubeObject[] = [];
  const remarks: string[] = [];
  for (const certificate of certificates) {
    signal.throwIfAborted();
    const { metadata, spec } = certificate;
    const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
    if (!adapter) continue;
    const { name, namespace = 'default', uid } = metadata;
    const remark = (text: string) => remarks.push(`${describe(refOf(certificate))}: ${text}`);
    const host = offlineHost({
      clock: systemClock,
      namespace,
      objects: given,
      usual: adapter.usual,
      report: (error) => remark(error.message),
    });
    const known = await offlineRules(adapter, spec.mesh.config, host, signal);
    const rules = known ?? (adapter.sniPerTarget ? UNKNOWN_RULES : undefined);
    const mesh = { ...adapter, tls: tlsDefaults(adapter, spec.mesh.config) };
    const judged = gatewaysOf(spec, gateways).map((use) => judge(certificate, use, { rules, mesh }, given, remark));
    const desired = desiredObjects({
      meta: { name, namespace, uid },
      spec,
      tls: mesh.tls,
      identity,
      bundle: chain,
      since: new Map(),
      uses: judged.map(({ use }) => use),
    });
    const routes = judged.flatMap((one) => one.routes);
    objects.push(...desired.map(({ object }) => withoutData(object, spec.mesh.name)), ...routes);
  }
  return { objects, remarks };
}

/** What one gateway needs, and its routes as they would be changed. */
function judge(
  { metadata, spec }: MeshCertificate,
  { gateway, config }: GatewayUse,
  known: Pick<RouteInput<unknown>, 'rules' | 'mesh'>,
  given: readonly KubeObject[],
  remark: (text: string) => void,
): { readonly use: GatewayUse; readonly routes: readonly KubeObject[] } {
  const { name, namespace = 'default', uid } = metadata;
  const input = { meta: { name, namespace, uid }, spec, config, ...known };
  const isIn = (object: KubeObject) => (scope: Scope) =>
    groupOf(scope.resource) === groupOf(object) &&
    scope.resource.kind === object.kind &&
    (scope.namespace === undefined || scope.namespace === object.metadata.namespace);
  const { routes: scopes } = gateway.routes.scopes(input);
  const observed: ObservedObjects = {
    routes: given.filter((object) => scopes.some(isIn(object))).filter(gateway.routes.concern(input, [])),
    own: [],
    behind: (kind) => given.filter((object) => object.kind === kind),
    unseen: new Map(),
    hidden: () => undefined,
    unserved: new Set(),
  };
  const { verdicts } = gateway.routes.judge(input, observed);
  const routes = verdicts.flatMap(({ route, selected, outcome }): KubeObject[] => {
    if ('code' in outcome) remark(`${outcome.code}: ${outcome.message}`);
    if ('code' in outcome || !selected) return [];
    const { apiVersion, kind } = route;
    const place = { name: route.metadata.name, namespace: route.metadata.namespace ?? namespace };
    const { change } = outcome.target;
    return change ? [{ ...change.fields, apiVersion, kind, metadata: place }] : [];
  });
  // Some objects are written only after the routes were changed.
  const then = { ...observed, routes: observed.routes.map((route) => changedBy(route, verdicts)) };
  return { use: { gateway, config, targets: gateway.routes.judge(input, then).targets }, routes };
}

function changedBy(route: KubeObject, verdicts: readonly RouteVerdict[]): KubeObject {
  const verdict = verdicts.find((one) => one.route === route && one.selected);
  const change = verdict && 'target' in verdict.outcome ? verdict.outcome.target.change : undefined;
  return change ? ({ ...route, ...merged(route, change.fields) } as KubeObject) : route;
}

/** Maps are merged and everything else is replaced, as an apply does. */
function merged(before: unknown, after: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const isMap = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value);
  const changed = Object.entries(after).map(([key, value]) => {
    return [key, isMap(value) ? merged(fields(before)[key], fields(value)) : value];
  });
  return { ...fields(before), ...Object.fromEntries(changed) };
}

const groupOf = ({ apiVersion }: { readonly apiVersion: string }): string => apiVersion.split('/')[0] ?? '';

const UNKNOWN_RULES: TargetRules = {
  discover: false,
  listed: [],
  identify: () => ({ code: 'ERR_TARGET_UNSEEN', message: 'not known here' }),
};

const MEANING: Readonly<Record<string, (mesh: string, trust: boolean) => string>> = {
  'tls.crt': (mesh, trust) => (trust ? `<the roots of ${mesh}>` : `<leaf and intermediates from ${mesh}>`),
  'tls.key': () => '<the private key, created by the agent>',
  'ca.crt': (mesh) => `<the roots of ${mesh}>`,
};

function withoutData(object: KubeObject, mesh: string): KubeObject {
  const { data, ...rest } = object;
  if (typeof data !== 'object' || data === null) return object;
  const trust = !('tls.key' in data);
  const shown = Object.fromEntries(Object.keys(data).map((key) => [key, MEANING[key]?.(mesh, trust) ?? '<data>']));
  return object.kind === 'Secret' ? { ...rest, stringData: shown } : { ...rest, data: shown };
}

/** Objects in the output of `kubectl get -o yaml` or `-o json`: documents, and lists of them. */
export function parseObjects(text: string): KubeObject[] {
  const objects: KubeObject[] = [];
  const add = (value: unknown) => {
    if (typeof value !== 'object' || value === null) return;
    const { kind, apiVersion, metadata, items } = value as { items?: unknown } & Partial<KubeObject>;
    if (Array.isArray(items)) items.forEach(add);
    else if (kind && apiVersion && metadata?.name) objects.push(value as KubeObject);
  };
  for (const document of parseAllDocuments(text)) {
    const [error] = document.errors;
    if (error) throw new SyntaxError(error.message);
    add(document.toJS({ maxAliasCount: 100 }));
  }
  return objects;
}
