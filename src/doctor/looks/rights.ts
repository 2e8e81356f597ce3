import { rbacFor } from '../../config/rbac.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, refOf } from '../../core/object.ts';
import { gateways } from '../../gateways.ts';
import { RESOURCES } from '../../kube/resources.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { fields, listOfFields } from '../../mesh/kube-object.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import { type FoundAgent, userOf } from '../observed/agents.ts';
import { failedOrSkipped, pooled, type Seen, type Tools, within } from './look.ts';

/** One question to the authorizer. */
export interface Right {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly subresource?: string | undefined;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
}

/** Concurrent questions; the API server answers each from memory. */
const AT_ONCE = 8;
const SHOWN = 5;

export const describeRight = ({ verb, group, resource, subresource, namespace, name }: Right): string => {
  const what = `${resource}${group === '' ? '' : `.${group}`}${subresource ? `/${subresource}` : ''}`;
  return `${verb} ${what}${name ? ` ${name}` : ''} ${namespace ? `in namespace ${namespace}` : 'in all namespaces'}`;
};

/**
 * Whether the agent's ServiceAccount may do all that these MeshCertificates need, according to the API server's
 * authorizer.
 */
export async function lookAtRights(
  tools: Tools,
  agent: FoundAgent,
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): Promise<Seen> {
  const { workload, serviceAccount } = agent;
  const about = { code: 'MC6008', object: workload } as const;
  const home = workload.metadata.namespace ?? agent.namespace;
  const fix = `grant it what \`meshcert render --rbac\` prints for these MeshCertificates, or update the chart's values`;
  try {
    const needed = rightsOf(agent, certificates, adapters);
    const allowed = await pooled(needed, AT_ONCE, (right) =>
      within(tools, (signal) => agentMay(tools, agent, right, signal)),
    );
    const missing = needed.filter((_, at) => !allowed[at]);
    const who = `ServiceAccount ${home}/${serviceAccount}`;
    if (missing.length === 0)
      return { ...about, state: 'passed', message: `${who} has the ${needed.length} rights that it needs` };
    const more = missing.length > SHOWN ? `, and ${missing.length - SHOWN} more` : '';
    const list = missing.slice(0, SHOWN).map(describeRight).join(', ');
    return { ...about, state: 'failed', message: `${who} may not ${list}${more}`, fix };
  } catch (error) {
    tools.signal.throwIfAborted();
    return failedOrSkipped(error, 'MC6008', workload, fix);
  }
}

/** The name of all Roles and bindings before they carried the agent's namespace. */
const SHARED = 'meshcert';

/**
 * Whether another agent is bound where agents of several namespaces had rights under one name. It was bound last, and the
 * others lost theirs.
 */
export async function lookAtSharedNames(
  tools: Tools,
  agent: FoundAgent,
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): Promise<Seen[]> {
  const { workload, serviceAccount: name } = agent;
  const home = workload.metadata.namespace ?? agent.namespace;
  const bindings = rolesOf(agent, certificates, adapters).filter(
    ({ kind, metadata }) => kind.endsWith('Binding') && metadata.namespace !== home,
  );
  const seen = await pooled(bindings, AT_ONCE, async ({ apiVersion, kind, metadata }): Promise<Seen[]> => {
    const ref = { apiVersion, kind, namespace: metadata.namespace, name: SHARED };
    const object: KubeObject = { ...ref, metadata: { ...metadata, name: SHARED } };
    const fix = `grant each agent what \`meshcert render --rbac\` or \`meshcert onboard\` of this version gives it; then delete ${describe(ref)} and its Role`;
    try {
      const found = await within(tools, (signal) => tools.kube.get(ref, signal));
      // The agent of that namespace itself is bound there by any version.
      const others = listOfFields(found?.subjects).filter(
        (one) => one.namespace !== metadata.namespace && (one.name !== name || one.namespace !== home),
      );
      if (found === undefined || others.length === 0) return [];
      const who = others.map((one) => `${String(one.namespace)}/${String(one.name)}`).join(', ');
      const message = safeMessage(
        `it binds ${who}; earlier versions gave the rights of every agent this name, and replaced those of ${home}/${name}`,
      );
      return [{ code: 'MC6014', state: 'failed', object, message, fix }];
    } catch (error) {
      tools.signal.throwIfAborted();
      return [failedOrSkipped(error, 'MC6014', object, fix)];
    }
  });
  return seen.flat();
}

export async function agentMay(tools: Tools, agent: FoundAgent, right: Right, signal: AbortSignal): Promise<boolean> {
  const { apiVersion, kind } = RESOURCES.subjectAccessReviews;
  const spec = { ...userOf(agent), resourceAttributes: right };
  const review: KubeObject = { apiVersion, kind, metadata: { name: '' }, spec };
  const answer = await tools.kube.post(RESOURCES.subjectAccessReviews, review, signal);
  return fields(answer.status).allowed === true;
}

function rolesOf(
  agent: FoundAgent,
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): readonly KubeObject[] {
  const { workload, serviceAccount: name, leaseName, shards, resources } = agent;
  const namespace = workload.metadata.namespace ?? agent.namespace;
  const serviceAccount = { name, namespace };
  return rbacFor(certificates, { serviceAccount, leaseName, shards, resources, name, adapters, gateways });
}

function rightsOf(agent: FoundAgent, certificates: readonly MeshCertificate[], adapters: readonly Adapter[]): Right[] {
  const roles = rolesOf(agent, certificates, adapters);
  const rights = roles.flatMap((role) => (Array.isArray(role.rules) ? rightsIn(role, role.rules.map(fields)) : []));
  const needed = agent.leases.length === 0 ? rights.filter(({ resource }) => resource !== 'leases') : rights;
  return [...new Map(needed.map((right) => [JSON.stringify(right), right])).values()];
}

function rightsIn(role: KubeObject, rules: readonly Readonly<Record<string, unknown>>[]): Right[] {
  const strings = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);
  return rules.flatMap((rule) =>
    strings(rule.apiGroups).flatMap((group) =>
      strings(rule.resources).flatMap((path) => {
        const [resource = '', subresource] = path.split('/');
        const names = rule.resourceNames === undefined ? [undefined] : strings(rule.resourceNames);
        const { namespace } = role.metadata;
        return strings(rule.verbs).flatMap((verb) =>
          names.map((name) => ({ verb, group, resource, subresource, namespace, name })),
        );
      }),
    ),
  );
}

/** Whether a token may be minted: what the agent may not do, doctor does not do in its place. */
export const mintRight = (account: { readonly name: string; readonly namespace: string }): Right => ({
  verb: 'create',
  group: '',
  resource: 'serviceaccounts',
  subresource: 'token',
  ...account,
});

export const titleOf = (agent: FoundAgent): string => describe(refOf(agent.workload));
