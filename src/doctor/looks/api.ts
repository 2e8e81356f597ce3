import type { KubeObject, Resource } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import { gateways } from '../../gateways.ts';
import { APPLY_DEFINITION, DEFINITION } from '../../kube/transport/classify.ts';
import { KubeError } from '../../kube/transport/error.ts';
import { fields, listOfFields, text } from '../../mesh/kube-object.ts';
import { CLUSTER, failedOrSkipped, type Seen, type Tools, within } from './look.ts';

const WARNING_MS = 5_000;
/** Meshes backdate leaves by 20 s to two minutes. */
const ERROR_MS = 60_000;

/** `skewMs`: the API server's clock minus this one, from its last response. */
export async function lookAtApi(tools: Tools, skewMs: () => number | undefined): Promise<Seen[]> {
  let version: string;
  try {
    const answer = fields(await within(tools, (signal) => tools.kube.raw('/version', signal)));
    version = text(answer.gitVersion) ?? 'of an unknown version';
  } catch (error) {
    tools.signal.throwIfAborted();
    const message = error instanceof Error ? error.message : String(error);
    const fix =
      'check the server in the kubeconfig (--kubeconfig, --context), the network, and whether your credentials are still good';
    return [{ code: 'MC6001', state: 'failed', object: CLUSTER, message, fix }];
  }
  const answers: Seen = {
    code: 'MC6001',
    state: 'passed',
    object: CLUSTER,
    message: `the API server answers (${version})`,
  };
  return [answers, ...skew(skewMs())];
}

function skew(ms: number | undefined): Seen[] {
  const about = { code: 'MC6002', object: CLUSTER } as const;
  if (ms === undefined) {
    return [{ ...about, state: 'skipped', message: 'the response of the API server has no time' }];
  }
  const seconds = Math.round(Math.abs(ms) / 1000);
  if (Math.abs(ms) < WARNING_MS) {
    return [{ ...about, state: 'passed', message: "this clock and the API server's differ by less than 5 s" }];
  }
  const message = `the API server's clock is ${seconds} s ${ms > 0 ? 'ahead of' : 'behind'} this machine's: certificates seem expired or not yet valid, and Leases seem lost`;
  const severity = Math.abs(ms) < ERROR_MS ? 'warning' : 'error';
  return [{ ...about, state: 'failed', severity, message, fix: 'set both clocks (NTP)' }];
}

const CRD = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  name: DEFINITION,
};

/** `expected` is the definition of this version, `used` the gateways that MeshCertificates use. */
export async function lookAtDefinitions(
  tools: Tools,
  expected: KubeObject,
  absent: ReadonlySet<string>,
  used: readonly Gateway[],
): Promise<Seen[]> {
  return [await meshCertificates(tools, expected, absent), ...(await lookAtGatewayDefinitions(tools, used))];
}

async function meshCertificates(tools: Tools, expected: KubeObject, absent: ReadonlySet<string>): Promise<Seen> {
  const object: KubeObject = { ...CRD, metadata: { name: CRD.name } };
  const about = { code: 'MC6003', object } as const;
  if (absent.has('MeshCertificate')) {
    return {
      ...about,
      state: 'failed',
      message: 'the API server does not know MeshCertificates, so none can be created, and no agent can watch them',
      fix: APPLY_DEFINITION,
    };
  }
  try {
    const found = await within(tools, (signal) => tools.kube.get(CRD, signal));
    if (!found) throw new Error('it is served, but its definition cannot be found');
    const lacking = missingProperties(schemaOf(expected), schemaOf(found));
    if (lacking.length === 0)
      return { ...about, state: 'passed', message: 'MeshCertificate is defined, with every field of this version' };
    const more = lacking.length > 3 ? ` and ${lacking.length - 3} more` : '';
    return {
      ...about,
      state: 'failed',
      severity: 'warning',
      message: `the definition is of another version: it lacks ${lacking.slice(0, 3).join(', ')}${more}, which the API server then drops from every MeshCertificate`,
      fix: APPLY_DEFINITION,
    };
  } catch (error) {
    tools.signal.throwIfAborted();
    return failedOrSkipped(error, 'MC6003', object, APPLY_DEFINITION);
  }
}

function schemaOf(definition: KubeObject): unknown {
  const [version] = (fields(definition.spec).versions as unknown[]) ?? [];
  return fields(fields(version).schema).openAPIV3Schema;
}

/** Paths of properties that `wanted` has and `found` has not. */
function missingProperties(wanted: unknown, found: unknown, path = ''): string[] {
  const [want, have] = [fields(wanted), fields(found)];
  if (have['x-kubernetes-preserve-unknown-fields'] === true) return [];
  const properties = Object.entries(fields(want.properties)).flatMap(([name, schema]) => {
    const at = path === '' ? name : `${path}.${name}`;
    const there = fields(have.properties)[name];
    return there === undefined ? [at] : missingProperties(schema, there, at);
  });
  return want.items === undefined
    ? properties
    : [...properties, ...missingProperties(want.items, have.items, `${path}[]`)];
}

/**
 * The definitions of these gateways. Without any gateway in use: of those that are installed, or of the default one.
 */
export async function lookAtGatewayDefinitions(tools: Tools, used: readonly Gateway[]): Promise<Seen[]> {
  const looked = await Promise.all(
    (used.length > 0 ? used : gateways).map(async (gateway) => ({
      gateway,
      seen: await definitionsOf(tools, gateway),
    })),
  );
  if (used.length > 0) return looked.flatMap(({ seen }) => seen);
  const installed = looked.filter(({ seen }) => seen.some(({ code, state }) => code === MISSING && state === 'passed'));
  const shown = installed.length > 0 ? installed : looked.filter(({ gateway }) => gateway.byDefault);
  return shown.flatMap(({ seen }) => seen);
}

const MISSING = 'MC6004';

/** The kinds of one gateway, until the first that is missing. */
async function definitionsOf(tools: Tools, { title, diagnosis }: Gateway): Promise<Seen[]> {
  const seen: Seen[] = [];
  for (const { resource, fix, experimental } of diagnosis?.served ?? []) {
    const [group = ''] = resource.apiVersion.split('/');
    const name = `${resource.plural}.${group}`;
    const object: KubeObject = { ...CRD, metadata: { name } };
    try {
      const problem = await unservedReason(tools, resource);
      if (problem !== undefined) return [...seen, { code: MISSING, object, state: 'failed', message: problem, fix }];
      if (!experimental) continue;
      const definition = await within(tools, (signal) => tools.kube.get({ ...CRD, name }, signal));
      const warning = definition && experimental(definition);
      if (warning) seen.push({ code: 'MC6013', object, state: 'failed', ...warning });
    } catch (error) {
      tools.signal.throwIfAborted();
      return [...seen, failedOrSkipped(error, MISSING, object, fix)];
    }
  }
  return [
    { code: MISSING, object: CLUSTER, state: 'passed', message: `the definitions of ${title} are served` },
    ...seen,
  ];
}

/** Why a kind is not served in its version, or undefined. */
async function unservedReason(tools: Tools, { apiVersion, kind }: Resource): Promise<string | undefined> {
  const [group = '', version = ''] = apiVersion.split('/');
  const read = async (path: string) => {
    try {
      return fields(await within(tools, (signal) => tools.kube.raw(path, signal)));
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    }
  };
  const found = await read(`/apis/${group}`);
  if (!found) return `the API server does not know ${group}: no ${kind} can be published`;
  const versions = listOfFields(found.versions).map((one) => String(one.version));
  if (!versions.includes(version))
    return `${group} is served as ${versions.join(', ')}, without ${version}, in which ${kind}s are written`;
  const kinds = listOfFields((await read(`/apis/${apiVersion}`))?.resources);
  return kinds.some((one) => one.kind === kind) ? undefined : `${apiVersion} is served without ${kind}`;
}
