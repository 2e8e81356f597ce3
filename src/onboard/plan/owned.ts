import { isDeepStrictEqual } from 'node:util';
import { FIELD_MANAGER, type KubeObject, MANAGED_BY_LABEL, OWNER_LABEL, preconditionOf } from '../../core/object.ts';
import { differences } from '../../core/plan/difference.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import { agentPodsOf } from '../../mesh/agent-pod.ts';
import { type Fields, fields, listOfFields } from '../../mesh/kube-object.ts';
import type { OnboardableGateway } from '../discover/gateway.ts';
import { isOnboarded, MESH_LABEL, ONBOARD_LABEL } from './document.ts';
import { ONBOARD_FIELD_MANAGER } from './moved.ts';

/** Namespace and name of a MeshCertificate, which may be gone. */
export interface CertificatePlace {
  readonly namespace: string;
  readonly name: string;
}

/** The gateway's own objects of one MeshCertificate. */
export const ownedBy = (
  objects: readonly KubeObject[],
  { onboarding }: OnboardableGateway,
  place: CertificatePlace,
): KubeObject[] =>
  objects.filter(
    ({ apiVersion, kind, metadata }) =>
      metadata.labels?.[OWNER_LABEL] === ownerLabel(place) &&
      onboarding
        .own(place)
        .some(
          ({ resource, namespace }) =>
            resource.apiVersion === apiVersion &&
            resource.kind === kind &&
            (namespace === undefined || namespace === metadata.namespace),
        ),
  );

/** What `onboard` created for one MeshCertificate beside it, so that routes lead there. */
export const standInsOf = (
  objects: readonly KubeObject[],
  { onboarding }: OnboardableGateway,
  { namespace, name }: CertificatePlace,
): KubeObject[] =>
  objects.filter(
    ({ apiVersion, kind, metadata }) =>
      metadata.namespace === namespace &&
      metadata.labels?.[ONBOARD_LABEL] !== undefined &&
      metadata.labels[MESH_LABEL] === name &&
      onboarding.standIns?.resources.some((one) => one.apiVersion === apiVersion && one.kind === kind),
  );

export const isRoute = ({ apiVersion, kind }: KubeObject, { onboarding }: OnboardableGateway): boolean =>
  onboarding.routes.some((one) => one.apiVersion === apiVersion && one.kind === kind);

/** A label or an annotation of a tool that maintains the object, and what the tool is called. */
const TOOLS: readonly (readonly [key: string, tool: string])[] = [
  ['meta.helm.sh/release-name', 'Helm'],
  ['argocd.argoproj.io/tracking-id', 'Argo CD'],
  ['argocd.argoproj.io/instance', 'Argo CD'],
  ['kustomize.toolkit.fluxcd.io/name', 'Flux'],
  ['helm.toolkit.fluxcd.io/name', 'Flux'],
];
const APPLIED_ANNOTATION = 'kubectl.kubernetes.io/last-applied-configuration';

/** The tool that maintains this object, and would undo a change of it; undefined: none is known. */
export function toolOf({ metadata: { labels = {}, annotations = {} } }: KubeObject): string | undefined {
  const [, tool] = TOOLS.find(([key]) => key in labels || key in annotations) ?? [];
  if (tool !== undefined) return tool;
  return labels[MANAGED_BY_LABEL] === 'Helm' ? 'Helm' : undefined;
}

/**
 * Who created this object, or took it over since `onboard` created it; undefined: it is `onboard`'s alone. A label can be
 * copied, so the field manager counts too. A label or an annotation of others takes nothing over.
 */
export function holderOf(object: KubeObject): string | undefined {
  const { metadata } = object;
  const managers = metadata.managedFields ?? [];
  const tool = toolOf(object);
  if (tool !== undefined) return tool;
  if (metadata.annotations?.[APPLIED_ANNOTATION] !== undefined) return 'kubectl apply';
  // A platform adds pull secrets to every ServiceAccount.
  const isShared = object.kind === 'ServiceAccount';
  const others = managers.filter(
    ({ manager, operation, subresource, fieldsV1 = {} }) =>
      subresource === undefined &&
      !manager.startsWith(FIELD_MANAGER) &&
      !isShared &&
      (operation === 'Apply' || hasContent(fieldsV1)),
  );
  const created = managers.some(({ manager, operation }) => manager === ONBOARD_FIELD_MANAGER && operation === 'Apply');
  const [other] = others;
  if (other) return `field manager ${other.manager}`;
  return created && isOnboarded(object) ? undefined : 'another client';
}

/** Whether a `fieldsV1` set has fields beside labels and annotations, which `kubectl rollout restart` sets too. */
const hasContent = (set: Readonly<Record<string, unknown>>): boolean =>
  Object.entries(set).some(([token, below]) => {
    if (token === 'f:metadata') return false;
    const inner = fields(below);
    return Object.keys(inner).length === 0 || hasContent(inner);
  });

/** The ServiceAccount of an agent. */
export type AgentAccount = CertificatePlace;

const sameAccount = (subject: unknown, agent: AgentAccount): boolean => {
  const { kind, name, namespace } = fields(subject);
  return kind === 'ServiceAccount' && name === agent.name && namespace === agent.namespace;
};

const isBinding = ({ kind }: KubeObject): boolean => kind.endsWith('Binding');

/** Whether a binding is for this agent and for nobody else. */
const bindsOnly = ({ subjects }: KubeObject, agent: AgentAccount): boolean =>
  Array.isArray(subjects) && subjects.length > 0 && subjects.every((subject) => sameAccount(subject, agent));

const bindingsTo = ({ kind, metadata }: KubeObject, bindings: readonly KubeObject[]): KubeObject[] =>
  bindings.filter(({ roleRef, metadata: { namespace } }) => {
    const ref = fields(roleRef);
    return (
      ref.kind === kind && ref.name === metadata.name && (kind === 'ClusterRole' || namespace === metadata.namespace)
    );
  });

/** Rights of one agent among the Roles and bindings of a cluster. */
export interface AgentRights {
  /** What `onboard` created, nobody took over, and only this agent uses; bindings first. */
  readonly own: readonly KubeObject[];
  /** What `onboard` created for this agent and has to leave, each with the reason. */
  readonly left: readonly { readonly object: KubeObject; readonly why: string }[];
}

/** `rights` have the label of `onboard`; `bindings` are all that may name one of these Roles. */
export function rightsOf(
  agent: AgentAccount,
  rights: readonly KubeObject[],
  bindings: readonly KubeObject[],
): AgentRights {
  const isNamed = ({ metadata }: KubeObject) => metadata.name === rightsName(agent.namespace);
  const own: KubeObject[] = [];
  const left: { object: KubeObject; why: string }[] = [];
  for (const object of [...rights].sort((a, b) => Number(isBinding(b)) - Number(isBinding(a)))) {
    const users = isBinding(object) ? [object] : bindingsTo(object, bindings);
    const others = users.filter((one) => !bindsOnly(one, agent));
    // Earlier versions gave all agents the same names: who is bound says whose rights they are.
    const isOurs =
      isNamed(object) || users.some(({ subjects }) => [subjects].flat().some((s) => sameAccount(s, agent)));
    if (!isOurs) continue;
    const holder = holderOf(object);
    if (holder !== undefined) left.push({ object, why: `${holder} has taken it over` });
    else if (others.length > 0) {
      const who = others.flatMap(({ subjects }) => [subjects].flat().filter((one) => !sameAccount(one, agent)));
      left.push({ object, why: `it is also for ${who.map(describeSubject).join(', ')}` });
    } else own.push(object);
  }
  return { own, left };
}

/** The name of all Roles and bindings that `onboard` creates for the agent of a namespace. */
export const rightsName = (namespace: string): string => `${ONBOARD_FIELD_MANAGER}.${namespace}`;

const describeSubject = (subject: unknown): string => {
  const { kind, name, namespace } = fields(subject);
  return `${String(kind)} ${namespace === undefined ? '' : `${String(namespace)}/`}${String(name)}`;
};

/** Whether an object that somebody else maintains does what this one is for, so that it can be used as it is. */
export function suffices(wanted: KubeObject, observed: KubeObject): boolean {
  if (wanted.kind === 'ServiceAccount' || wanted.kind === 'CustomResourceDefinition') return true;
  if (wanted.kind === 'Deployment') return agentPodsOf([observed]).length > 0;
  if (isBinding(wanted)) {
    const { subjects = [] } = wanted;
    const has = (subject: unknown) =>
      [observed.subjects].flat().some((one) => describeSubject(one) === describeSubject(subject));
    return isDeepStrictEqual(fields(observed.roleRef), fields(wanted.roleRef)) && [subjects].flat().every(has);
  }
  if (wanted.rules !== undefined) return listOfFields(wanted.rules).every((rule) => isGranted(rule, observed.rules));
  const { labels: _, ...metadata } = wanted.metadata;
  return differences({ ...wanted, metadata }, observed).length === 0;
}

/** Whether each single right of this rule is in one of those. */
function isGranted(rule: Fields, rules: unknown): boolean {
  const strings = (value: unknown): readonly string[] => (Array.isArray(value) ? value.map(String) : []);
  const all = listOfFields(rules);
  const allows = (list: unknown, value: string) => strings(list).some((one) => one === value || one === '*');
  const namesOf = (one: Fields) => strings(one.resourceNames);
  const names = namesOf(rule).length === 0 ? [undefined] : namesOf(rule);
  return strings(rule.apiGroups).every((group) =>
    strings(rule.resources).every((resource) =>
      strings(rule.verbs).every((verb) =>
        names.every((name) =>
          all.some(
            (one) =>
              allows(one.apiGroups, group) &&
              allows(one.resources, resource) &&
              allows(one.verbs, verb) &&
              (namesOf(one).length === 0 || (name !== undefined && namesOf(one).includes(name))),
          ),
        ),
      ),
    ),
  );
}

/** The object as it was judged, or a conflict. Of one with a status, which changes by itself, only the same object. */
export function withVersion(object: KubeObject, observed: KubeObject): KubeObject {
  const { resourceVersion, ...same } = preconditionOf(observed);
  const isSteady = observed.status === undefined && resourceVersion !== undefined;
  return { ...object, metadata: { ...object.metadata, ...same, ...(isSteady && { resourceVersion }) } };
}
