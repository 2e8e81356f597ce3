import { fieldsIn, type Stored } from './objects/object.ts';
import type { Store } from './objects/store.ts';
import type { User } from './tokens.ts';

/** A question to the authorizer. */
export interface Attributes {
  readonly verb: string;
  readonly group: string;
  readonly plural: string;
  readonly subresource: string | undefined;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
}

const RBAC = 'rbac.authorization.k8s.io';

/** Role-based access control over the stored roles and bindings. `system:masters` may do everything. */
export function allowed(store: Store, user: User, attributes: Attributes): boolean {
  if (user.groups.includes('system:masters')) return true;
  if (attributes.group === 'authorization.k8s.io' && attributes.plural === 'selfsubjectaccessreviews') return true;
  const bound = store
    .list(`${RBAC}/clusterrolebindings`)
    .concat(attributes.namespace === undefined ? [] : store.list(`${RBAC}/rolebindings`, attributes.namespace))
    .filter((binding) => listOf(binding.subjects).some((subject) => isSubject(subject, user, binding)));
  return bound.some((binding) => rulesOf(store, binding).some((rule) => permits(rule, attributes)));
}

export function refusal(user: User, { verb, group, plural, subresource, namespace, name }: Attributes): string {
  const resource = subresource ? `${plural}/${subresource}` : plural;
  const where = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`;
  const what = group === '' ? plural : `${plural}.${group}`;
  return `${what}${name ? ` "${name}"` : ''} is forbidden: User "${user.username}" cannot ${verb} resource "${resource}" in API group "${group}" ${where}`;
}

const listOf = (value: unknown): Record<string, unknown>[] => (Array.isArray(value) ? value.map(fieldsIn) : []);
const has = (values: unknown, wanted: string): boolean =>
  Array.isArray(values) && (values.includes(wanted) || values.includes('*'));

function isSubject(subject: Record<string, unknown>, user: User, binding: Stored): boolean {
  if (subject.kind === 'User') return subject.name === user.username;
  if (subject.kind === 'Group') return user.groups.includes(String(subject.name));
  const namespace = subject.namespace ?? binding.metadata.namespace;
  return user.username === `system:serviceaccount:${namespace}:${subject.name}`;
}

function rulesOf(store: Store, binding: Stored): Record<string, unknown>[] {
  const ref = fieldsIn(binding.roleRef);
  const role =
    ref.kind === 'Role'
      ? store.get(`${RBAC}/roles`, binding.metadata.namespace, String(ref.name))
      : store.get(`${RBAC}/clusterroles`, undefined, String(ref.name));
  return listOf(role?.rules);
}

function permits(rule: Record<string, unknown>, asked: Attributes): boolean {
  const resource = asked.subresource ? `${asked.plural}/${asked.subresource}` : asked.plural;
  const names = rule.resourceNames;
  const named = !Array.isArray(names) || names.length === 0 || (asked.name !== undefined && names.includes(asked.name));
  return has(rule.verbs, asked.verb) && has(rule.apiGroups, asked.group) && has(rule.resources, resource) && named;
}
