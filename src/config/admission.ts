import type { KubeObject } from '../core/object.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { agentLabels } from './rbac.ts';
import { API_VERSION } from './schema/mesh-certificate.ts';

export interface AdmissionOptions {
  readonly adapters: readonly Adapter[];
  /** Begins the name of the policy and of its binding; a dot and the agent's namespace follow, as in `RbacOptions`. */
  readonly name: string;
  /** The agent's own account: tokens from files belong to it. */
  readonly serviceAccount: { readonly name: string; readonly namespace: string };
  /** Namespaces whose MeshCertificates are checked; absent: all. */
  readonly namespaces?: readonly string[] | undefined;
}

const [GROUP = ''] = API_VERSION.split('/');

/**
 * A change of anything else uses no other token and sends none elsewhere. Neither does the agent's own write of a
 * finalizer.
 */
const meshChanged = (adapters: readonly Adapter[]): string =>
  ['oldObject == null', ...adapters.map(({ mesh }) => `object.spec.?${mesh} != oldObject.spec.?${mesh}`)].join(' || ');

/** The account whose token a MeshCertificate uses; empty if it uses none. */
function account({ serviceAccount, adapters }: AdmissionOptions): string {
  const fields = adapters.flatMap(({ mesh, tokenFields = [] }) =>
    tokenFields.map(({ path, names }) => ({ path: [mesh, ...path.split('.')], names })),
  );
  const isSet = ({ path }: { readonly path: readonly string[] }) => `object.spec.?${path.join('.?')}.hasValue()`;
  const accounts = fields.flatMap((field) => {
    const value = `object.spec.${field.path.join('.')}`;
    if (field.names === 'account') return `${isSet(field)} ? ${reference('request.namespace', value)}`;
    if (field.names === 'agent') return [];
    return `${isSet(field)} ? ${reference(`${value}.?namespace.orValue(request.namespace)`, `${value}.name`)}`;
  });
  const own = fields.filter(({ names }) => names === 'agent').map(isSet);
  const agent = `{'namespace': '${serviceAccount.namespace}', 'name': '${serviceAccount.name}'}`;
  return [
    ...accounts,
    ...(own.length > 0 ? [`${own.join(' || ')} ? ${agent}`] : []),
    "{'namespace': '', 'name': ''}",
  ].join(' : ');
}

const reference = (namespace: string, name: string): string =>
  `{'namespace': string(${namespace}), 'name': string(${name})}`;

/**
 * A ValidatingAdmissionPolicy and its binding, for Kubernetes 1.30 or later: a user who creates a MeshCertificate, or
 * changes its mesh configuration, must be allowed to mint tokens for the ServiceAccount that it uses.
 */
export function admissionPolicy(options: AdmissionOptions): readonly KubeObject[] {
  const { serviceAccount, namespaces } = options;
  const name = `${options.name}.${serviceAccount.namespace}`;
  const metadata = { name, labels: agentLabels(serviceAccount) };
  const apiVersion = 'admissionregistration.k8s.io/v1';
  const allowed =
    "authorizer.group('').resource('serviceaccounts').subresource('token').namespace(variables.account.namespace).name(variables.account.name).check('create').allowed()";
  return [
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicy',
      metadata,
      spec: {
        failurePolicy: 'Fail',
        matchConstraints: {
          resourceRules: [
            {
              apiGroups: [GROUP],
              apiVersions: ['*'],
              operations: ['CREATE', 'UPDATE'],
              resources: ['meshcertificates'],
            },
          ],
        },
        matchConditions: [{ name: 'mesh-changed', expression: meshChanged(options.adapters) }],
        variables: [{ name: 'account', expression: account(options) }],
        validations: [
          {
            expression: `variables.account.name == '' || ${allowed}`,
            reason: 'Forbidden',
            messageExpression:
              "'the MeshCertificate uses tokens of ServiceAccount ' + variables.account.namespace + '/' + variables.account.name + ', for which user ' + request.userInfo.username + ' cannot create tokens: grant \"create\" on serviceaccounts/token with resourceNames [' + variables.account.name + '] in namespace ' + variables.account.namespace",
          },
        ],
      },
    },
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata,
      spec: {
        policyName: name,
        validationActions: ['Deny'],
        ...(namespaces === undefined
          ? {}
          : {
              matchResources: {
                namespaceSelector: {
                  matchExpressions: [
                    { key: 'kubernetes.io/metadata.name', operator: 'In', values: [...namespaces].sort() },
                  ],
                },
              },
            }),
      },
    },
  ];
}
