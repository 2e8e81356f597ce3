import type { Adapter } from '../mesh/adapter.ts';
import type { KubeObject } from '../objects/objects.ts';
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
 * Every field of the spec may lead the token, the key or the identity elsewhere. Metadata does not, so the agent may
 * write its finalizer.
 */
const SPEC_CHANGED = 'oldObject == null || object.spec != oldObject.spec';

/**
 * The account whose identity a MeshCertificate publishes. Where it names none, that is the agent's own: its sockets,
 * files and tokens are used.
 */
function account(object: 'object' | 'oldObject', { serviceAccount, adapters }: AdmissionOptions): string {
  const fields = adapters.flatMap(({ mesh, tokenFields = [] }) =>
    tokenFields.map(({ path, names }) => ({ path: [mesh, ...path.split('.')], names })),
  );
  const isSet = ({ path }: { readonly path: readonly string[] }) => `${object}.spec.?${path.join('.?')}.hasValue()`;
  const accounts = fields.flatMap((field) => {
    const value = `${object}.spec.${field.path.join('.')}`;
    if (field.names === 'account') return `${isSet(field)} ? ${reference('request.namespace', value)}`;
    if (field.names === 'agent') return [];
    return `${isSet(field)} ? ${reference(`${value}.?namespace.orValue(request.namespace)`, `${value}.name`)}`;
  });
  return [...accounts, `{'namespace': '${serviceAccount.namespace}', 'name': '${serviceAccount.name}'}`].join(' : ');
}

const reference = (namespace: string, name: string): string =>
  `{'namespace': string(${namespace}), 'name': string(${name})}`;

/**
 * A ValidatingAdmissionPolicy and its binding, for Kubernetes 1.30 or later: a user who creates a MeshCertificate, or
 * changes its spec, must be allowed to mint tokens for the ServiceAccount that it uses, before the change and after it.
 */
export function admissionPolicy(options: AdmissionOptions): readonly KubeObject[] {
  const { serviceAccount, namespaces } = options;
  const name = `${options.name}.${serviceAccount.namespace}`;
  const metadata = { name, labels: agentLabels(serviceAccount) };
  const apiVersion = 'admissionregistration.k8s.io/v1';
  const allowed = (of: string) => ({
    expression: `authorizer.group('').resource('serviceaccounts').subresource('token').namespace(${of}.namespace).name(${of}.name).check('create').allowed()`,
    reason: 'Forbidden',
    messageExpression: `'the MeshCertificate uses tokens of ServiceAccount ' + ${of}.namespace + '/' + ${of}.name + ', for which user ' + request.userInfo.username + ' cannot create tokens: grant "create" on serviceaccounts/token with resourceNames [' + ${of}.name + '] in namespace ' + ${of}.namespace`,
  });
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
        matchConditions: [{ name: 'spec-changed', expression: SPEC_CHANGED }],
        variables: [
          { name: 'account', expression: account('object', options) },
          { name: 'before', expression: `oldObject == null ? variables.account : ${account('oldObject', options)}` },
        ],
        validations: [allowed('variables.account'), allowed('variables.before')],
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
