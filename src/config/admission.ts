import type { KubeObject } from '../core/object.ts';
import { API_VERSION } from './schema/mesh-certificate.ts';

export interface AdmissionOptions {
  /** Of the policy and of its binding. */
  readonly name: string;
  /** The agent's own: token files are its tokens. */
  readonly serviceAccount: { readonly name: string; readonly namespace: string };
  /** Whose MeshCertificates are judged; absent: all. */
  readonly namespaces?: readonly string[] | undefined;
}

const [GROUP = ''] = API_VERSION.split('/');

const MESHES = ['istio', 'linkerd', 'consul'] as const;

/** A change of anything else uses no other token and sends none elsewhere, nor does the agent's own write of a finalizer. */
const MESH_CHANGED = [
  'oldObject == null',
  ...MESHES.map((mesh) => `object.spec.?${mesh} != oldObject.spec.?${mesh}`),
].join(' || ');

/** Whose token a MeshCertificate uses; an empty name where it uses none. */
function account({ name, namespace }: AdmissionOptions['serviceAccount']): string {
  const own = (path: string) => `{'namespace': string(request.namespace), 'name': string(${path})}`;
  const agent = `{'namespace': '${namespace}', 'name': '${name}'}`;
  return [
    `object.spec.?istio.?ca.?serviceAccount.hasValue() ? ${own('object.spec.istio.ca.serviceAccount')}`,
    `object.spec.?consul.?auth.?login.?serviceAccount.hasValue() ? ${own('object.spec.consul.auth.login.serviceAccount')}`,
    "object.spec.?linkerd.?serviceAccount.hasValue() ? {'namespace': string(object.spec.linkerd.serviceAccount.?namespace.orValue(request.namespace)), 'name': string(object.spec.linkerd.serviceAccount.name)}",
    `object.spec.?istio.?ca.?tokenFile.hasValue() || object.spec.?linkerd.?tokenFile.hasValue() || object.spec.?consul.?auth.?tokenFile.hasValue() || object.spec.?consul.?auth.?login.hasValue() ? ${agent}`,
    "{'namespace': '', 'name': ''}",
  ].join(' : ');
}

/**
 * A ValidatingAdmissionPolicy and its binding, for Kubernetes 1.30 or later: whoever creates a MeshCertificate, or
 * changes what it has of its mesh, must be allowed to mint tokens for the ServiceAccount that it uses.
 */
export function admissionPolicy(options: AdmissionOptions): readonly KubeObject[] {
  const { name, namespaces } = options;
  const apiVersion = 'admissionregistration.k8s.io/v1';
  const allowed =
    "authorizer.group('').resource('serviceaccounts').subresource('token').namespace(variables.account.namespace).name(variables.account.name).check('create').allowed()";
  return [
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicy',
      metadata: { name },
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
        matchConditions: [{ name: 'mesh-changed', expression: MESH_CHANGED }],
        variables: [{ name: 'account', expression: account(options.serviceAccount) }],
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
      metadata: { name },
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
