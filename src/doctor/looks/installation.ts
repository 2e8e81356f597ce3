import { gateways as kindsOfGateways } from '../../gateways.ts';
import type { Kube, Resource } from '../../kube/api.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { fields } from '../../mesh/kube-object.ts';
import { CLUSTER, failedOrSkipped, pooled, type Seen, type Tools, within } from './look.ts';
import { describeRight } from './rights.ts';

/** What was discovered in the cluster, in sentences. */
export interface InstallationContext {
  readonly gateways: readonly string[];
  readonly meshes: readonly { readonly title: string; readonly problem?: string | undefined }[];
  /** The meshes that were searched for. */
  readonly known: readonly string[];
  /** What could not be read, and therefore may exist. */
  readonly unseen: readonly string[];
}

/** CustomResourceDefinitions with CEL rules. */
const LEAST_MINOR = 25;

/** What an installation creates. `namespaced` kinds are checked in the namespace of the agent. */
const CREATED: readonly Resource[] = [
  RESOURCES.customResourceDefinitions,
  RESOURCES.serviceAccounts,
  RESOURCES.roles,
  RESOURCES.roleBindings,
  RESOURCES.deployments,
  RESOURCES.meshCertificates,
];

/** Before anything is installed: version, rights, and whether there are a gateway and a mesh to connect. */
export async function lookBeforeInstallation(
  tools: Tools,
  namespace: string,
  surroundings: () => Promise<InstallationContext>,
): Promise<Seen[]> {
  return [await version(tools), await rights(tools, namespace), ...(await around(tools, surroundings))];
}

async function version(tools: Tools): Promise<Seen> {
  const about = { code: 'MC6102', object: CLUSTER } as const;
  const fix = `upgrade Kubernetes to 1.${LEAST_MINOR} or later`;
  try {
    const answer = fields(await within(tools, (signal) => tools.kube.raw('/version', signal)));
    const minor = Number.parseInt(String(answer.minor), 10);
    if (answer.major === '1' && minor < LEAST_MINOR) {
      const message = `Kubernetes 1.${minor} does not check the rules in the definition of MeshCertificate (CEL)`;
      return { ...about, state: 'failed', message, fix };
    }
    return {
      ...about,
      state: 'passed',
      message: `Kubernetes ${answer.major}.${answer.minor} checks the rules of definitions`,
    };
  } catch (error) {
    tools.signal.throwIfAborted();
    return failedOrSkipped(error, 'MC6102', CLUSTER, fix);
  }
}

async function rights(tools: Tools, namespace: string): Promise<Seen> {
  const about = { code: 'MC6101', object: CLUSTER } as const;
  const fix = `ask an administrator to install, or for these rights (and for "escalate" or the rights that the agent's Role grants)`;
  try {
    const allowed = await pooled(CREATED, CREATED.length, (resource) =>
      within(tools, (signal) => canI(tools.kube, 'create', resource, resource.namespaced ? { namespace } : {}, signal)),
    );
    const missing = CREATED.filter((_, at) => !allowed[at]);
    if (missing.length === 0)
      return {
        ...about,
        state: 'passed',
        message: `you may create everything that an installation in namespace ${namespace} needs`,
      };
    const list = missing.map(({ apiVersion, plural, namespaced }) => {
      const [group = '', v] = apiVersion.split('/');
      return describeRight({
        verb: 'create',
        group: v ? group : '',
        resource: plural,
        namespace: namespaced ? namespace : undefined,
      });
    });
    return { ...about, state: 'failed', message: `you may not ${list.join(', ')}`, fix };
  } catch (error) {
    tools.signal.throwIfAborted();
    return failedOrSkipped(error, 'MC6101', CLUSTER, fix);
  }
}

async function around(tools: Tools, surroundings: () => Promise<InstallationContext>): Promise<Seen[]> {
  let found: InstallationContext;
  try {
    found = await surroundings();
  } catch (error) {
    tools.signal.throwIfAborted();
    return [failedOrSkipped(error, 'MC6103', CLUSTER, 'see the message')];
  }
  const { gateways, meshes, known, unseen } = found;
  const blind =
    unseen.length === 0 ? '' : ` (not seen: ${unseen.slice(0, 3).join(', ')}${unseen.length > 3 ? ' and more' : ''})`;
  const titles = kindsOfGateways.map(({ title }) => title).join(', ');
  const gateway = { code: 'MC6103', object: CLUSTER } as const;
  const mesh = { code: 'MC6104', object: CLUSTER } as const;
  return [
    ...gateways.map((title): Seen => ({ ...gateway, state: 'passed', message: title })),
    ...(gateways.length > 0
      ? []
      : [
          {
            ...gateway,
            state: 'failed',
            message: `no Deployment or DaemonSet of ${titles} was found${blind}`,
            fix: 'install one, or check another cluster (--context)',
          } as const,
        ]),
    ...meshes.map(
      ({ title, problem }): Seen =>
        problem === undefined
          ? { ...mesh, state: 'passed', message: title }
          : {
              ...mesh,
              state: 'failed',
              message: `${title}: ${problem}`,
              fix: 'the guide of the mesh in docs/ says what it needs',
            },
    ),
    ...(meshes.length > 0
      ? []
      : [
          {
            ...mesh,
            state: 'failed',
            message: `neither ${known.join(' nor ')} was found in this cluster${blind}`,
            fix: 'install the mesh first; one that runs elsewhere is configured by its address',
          } as const,
        ]),
  ];
}

interface AccessQuestion {
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
  readonly subresource?: string | undefined;
}

/**
 * Whether the connection's own user may do this, according to the API server's authorizer (SelfSubjectAccessReview).
 */
export async function canI(
  kube: Kube,
  verb: string,
  resource: Resource,
  about: AccessQuestion = {},
  signal?: AbortSignal,
): Promise<boolean> {
  const [version = '', group = ''] = resource.apiVersion.split('/').reverse();
  const { apiVersion, kind } = RESOURCES.selfSubjectAccessReviews;
  const resourceAttributes = { verb, group, version, resource: resource.plural, ...about };
  const review = { apiVersion, kind, metadata: { name: '' }, spec: { resourceAttributes } };
  const answer = await kube.post(RESOURCES.selfSubjectAccessReviews, review, signal);
  return (answer.status as { allowed?: boolean } | undefined)?.allowed === true;
}
