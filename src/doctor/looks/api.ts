import type { KubeObject } from '../../core/object.ts';
import { gateways } from '../../gateways.ts';
import { KubeError } from '../../kube/transport/error.ts';
import { fields, text } from '../../mesh/kube-object.ts';
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
  name: 'meshcertificates.meshcert.dev',
};
const APPLY = 'meshcert schema --crd | kubectl apply --server-side -f -';

/** `expected` is the definition of this version. */
export async function lookAtDefinitions(
  tools: Tools,
  expected: KubeObject,
  absent: ReadonlySet<string>,
): Promise<Seen[]> {
  return [await meshCertificates(tools, expected, absent), await lookAtGatewayDefinitions(tools)];
}

async function meshCertificates(tools: Tools, expected: KubeObject, absent: ReadonlySet<string>): Promise<Seen> {
  const object: KubeObject = { ...CRD, metadata: { name: CRD.name } };
  const about = { code: 'MC6003', object } as const;
  if (absent.has('MeshCertificate')) {
    return {
      ...about,
      state: 'failed',
      message: 'the API server does not know MeshCertificates, so none can be created, and no agent can watch them',
      fix: APPLY,
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
      fix: APPLY,
    };
  } catch (error) {
    tools.signal.throwIfAborted();
    return failedOrSkipped(error, 'MC6003', object, APPLY);
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

export async function lookAtGatewayDefinitions(tools: Tools): Promise<Seen> {
  const [served] = gateways.flatMap(({ diagnosis }) => diagnosis?.served ?? []);
  const { group = '', version = '', resource = '', fix = '' } = served ?? {};
  const object: KubeObject = { ...CRD, metadata: { name: `${resource.toLowerCase()}s.${group}` } };
  const about = { code: 'MC6004', object } as const;
  try {
    const found = fields(await within(tools, (signal) => tools.kube.raw(`/apis/${group}`, signal)));
    const versions = (Array.isArray(found.versions) ? found.versions : []).map((one) => String(fields(one).version));
    if (versions.includes(version)) {
      return { ...about, state: 'passed', message: `the gateway's definitions are served (${versions.join(', ')})` };
    }
    const message = `${group} is served as ${versions.join(', ')}, without ${version}, in which ${resource}s are written`;
    return { ...about, state: 'failed', message, fix };
  } catch (error) {
    tools.signal.throwIfAborted();
    if (!(error instanceof KubeError) || error.status !== 404) return failedOrSkipped(error, 'MC6004', object, fix);
    const message = `the API server does not know ${group}: no ${resource} can be published`;
    return { ...about, state: 'failed', message, fix };
  }
}
