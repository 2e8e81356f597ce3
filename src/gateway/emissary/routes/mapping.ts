import { consentRefusal } from '../../../core/consent.ts';
import { describe, type KubeObject, refOf } from '../../../core/object.ts';
import { hasLabels } from '../../../mesh/kube-object.ts';
import type { TargetRefusal, TargetRules } from '../../../mesh/targeting.ts';
import { mappingSpec } from '../reading/kinds.ts';
import { parseService } from '../reading/service.ts';
import { MAPPING_FIELD_MANAGER } from '../spec/resources.ts';
import { contextNameOf, listedContexts } from './context-name.ts';
import { podsBehind } from './endpoints.ts';
import { serviceNameOf } from './service-name.ts';
import type { MappingVerdict, Target, TargetSelection, TargetWorld } from './target.ts';

/** The verdict on one Mapping; undefined when it is not selected and names none of our contexts. */
export function judgeMapping(
  mapping: KubeObject,
  selection: TargetSelection,
  world: TargetWorld,
  ours: ReadonlySet<string>,
): MappingVerdict | undefined {
  const { service, tls } = mappingSpec(mapping);
  const named = typeof tls === 'string' ? tls : undefined;
  const selected = isSelected(mapping, selection);
  if (!isMentioned(mapping, selection, ours)) return undefined;

  const found = findTarget(mapping, selection, world);
  const title = describe(refOf(mapping));
  const left = ({ code, message }: TargetRefusal): MappingVerdict => ({
    mapping,
    service,
    selected,
    named,
    outcome: { code, message: `${title} cannot use the certificate: ${message}` },
  });
  if (!selected && selection.selector && setsTls(mapping)) {
    const message = `the agent set its spec.tls, but its labels no longer match the selector; restore the labels, or remove spec.tls`;
    return left({ code: 'ERR_TARGET_UNSELECTED', message });
  }
  const refusal = selected ? consentRefusal(mapping, selection.namespace) : undefined;
  if (refusal) return left(refusal);
  if ('code' in found) return left(found);
  if (named !== undefined && named !== found.contextName && !(setsTls(mapping) && ours.has(named))) {
    const who = setsTls(mapping) ? 'for another MeshCertificate' : 'by another client';
    const message = `its spec.tls names ${named}, set ${who}; remove it, or set ${found.contextName}`;
    return left({ code: 'ERR_TARGET_FOREIGN_TLS', message });
  }
  return { mapping, service, selected, named, outcome: { target: found } };
}

function isSelected(mapping: KubeObject, { selector }: TargetSelection): boolean {
  return selector !== undefined && hasLabels(mapping, selector);
}

/** Whether a Mapping is selected or names one of our contexts. */
export function isMentioned(mapping: KubeObject, selection: TargetSelection, ours: ReadonlySet<string>): boolean {
  const { tls } = mappingSpec(mapping);
  return isSelected(mapping, selection) || (typeof tls === 'string' && ours.has(tls));
}

/** Whether `spec.tls` of a Mapping was applied by us. */
export function setsTls(mapping: KubeObject): boolean {
  return (mapping.metadata.managedFields ?? []).some((entry) => {
    if (entry.manager !== MAPPING_FIELD_MANAGER || entry.operation !== 'Apply') return false;
    const spec = entry.fieldsV1?.['f:spec'] as Record<string, unknown> | undefined;
    return spec !== undefined && 'f:tls' in spec;
  });
}

/** Why the identity of an upstream cannot be known; it is believed then that a Mapping names the right listed context. */
const UNKNOWABLE: readonly string[] = ['ERR_TARGET_NO_POD', 'ERR_TARGET_UNSEEN'];

function findTarget(mapping: KubeObject, selection: TargetSelection, world: TargetWorld): Target | TargetRefusal {
  const found = seenTarget(mapping, selection, world);
  if (!('code' in found) || !UNKNOWABLE.includes(found.code)) return found;
  const { tls } = mappingSpec(mapping);
  const named = listedContexts(selection).find(({ contextName }) => contextName === tls);
  return named ? { contextName: named.contextName, sni: named.sni } : found;
}

function seenTarget(mapping: KubeObject, selection: TargetSelection, world: TargetWorld): Target | TargetRefusal {
  const { service, ambassadorId } = mappingSpec(mapping);
  const isTcp = mapping.kind === 'TCPMapping';
  const { scheme, host, port = 443, errors } = parseService(service);
  if (errors.length > 0 && !isTcp) {
    const message = `its service ${JSON.stringify(service)} cannot be read (${errors[0]}); write https://NAME.NAMESPACE:PORT`;
    return { code: 'ERR_TARGET_SERVICE_SYNTAX', message };
  }
  const ids = ambassadorIds(ambassadorId);
  const contextIds = ambassadorIds(selection.ambassadorIds);
  if (!ids.includes('_automatic_') && !ids.some((id) => contextIds.includes(id))) {
    const message = `it belongs to the gateway ${ids.join(', ')}, the context to ${contextIds.join(', ')}; give both the same ambassador_id`;
    return { code: 'ERR_TARGET_AMBASSADOR_ID', message };
  }
  // Without a scheme the gateway falls back to plaintext for a TCPMapping too; doctor warns of it.
  if (scheme !== 'https' && !isTcp) {
    const message = `its service ${service} has no https://, so the gateway would use plaintext when the TLSContext is missing; write https://${host}:${port}`;
    return { code: 'ERR_TARGET_NO_HTTPS', message };
  }
  if (!selection.rules) return { contextName: selection.contextName, sni: selection.sni };
  const name = serviceNameOf(host, mapping.metadata.namespace ?? '');
  if ('code' in name) return name;
  const unseen = world.unseen?.get(name.namespace);
  if (unseen !== undefined) {
    const message = `the pods in namespace ${name.namespace} cannot be read yet (${unseen}); the agent needs get, list and watch on services, endpointslices and pods there. Or list the target in the MeshCertificate, and name its context in the Mapping`;
    return { code: 'ERR_TARGET_UNSEEN', message };
  }
  return agreedTarget(
    `Service ${name.namespace}/${name.name}`,
    podsBehind(name, port, world),
    selection,
    selection.rules,
  );
}

/** Absent or empty: the gateway named `default`, as Emissary reads it. */
function ambassadorIds(value: unknown): readonly string[] {
  const ids = (Array.isArray(value) ? value : [value]).filter((id): id is string => typeof id === 'string');
  return ids.length === 0 ? ['default'] : ids;
}

function agreedTarget(
  title: string,
  pods: ReturnType<typeof podsBehind>,
  selection: TargetSelection,
  rules: TargetRules,
): Target | TargetRefusal {
  if ('code' in pods) return pods;
  const refused: TargetRefusal[] = [];
  const byId = new Map<string, string>();
  let account = { serviceAccount: '', namespace: '' };
  for (const { workload, port } of pods) {
    const identified = rules.identify(workload, port);
    if ('code' in identified) refused.push(identified);
    else {
      byId.set(identified.id, workload.name);
      account = workload;
    }
  }
  const first = refused[0];
  if (first && byId.size === 0) return first;
  if (first) {
    const message = `${title} has different pods: ${pods.length - refused.length} of ${pods.length} are suitable, but ${first.message}`;
    return { code: 'ERR_TARGET_DISAGREE', message };
  }
  const [id, ...others] = byId.keys();
  if (id === undefined || others.length > 0) {
    const list = [...byId].map(([name, pod]) => `${name} (pod ${pod})`).join(', ');
    const message = `the pods of ${title} have different identities: ${list}; give them one ServiceAccount, or create one Service for each`;
    return { code: 'ERR_TARGET_DISAGREE', message };
  }
  const listed = listedContexts(selection).find((target) => target.sni === id);
  if (listed) return { contextName: listed.contextName, sni: id };
  if (rules.discover) return { contextName: contextNameOf(selection.contextName, account), sni: id };
  const message = `its target is the ServiceAccount ${account.namespace}/${account.serviceAccount}, which the MeshCertificate does not list; add it to targets, or set discover: true`;
  return { code: 'ERR_TARGET_NOT_LISTED', message };
}
