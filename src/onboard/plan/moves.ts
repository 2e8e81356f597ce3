import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { KubeObject } from '../../core/object.ts';
import { mappingSpec } from '../../gateway/emissary/reading/kinds.ts';
import type { Target } from '../../gateway/emissary/routes/target.ts';
import { judgeMappings } from '../../gateway/emissary/routes/targets.ts';
import { emissaryConfigOf } from '../../gateway/emissary/spec/config.ts';
import { fields } from '../../mesh/kube-object.ts';
import type { TargetRules } from '../../mesh/targeting.ts';
import type { UpstreamFinding } from '../discover/upstream.ts';
import { type Move, moved } from './moved.ts';
import type { OnboardSnapshot } from './snapshot.ts';

/** The verdict on one Mapping. */
export interface MoveVerdict {
  readonly upstream: UpstreamFinding;
  readonly outcome: /** Its requests use the mesh's identity already, or will as soon as it is published. */
    | { readonly kind: 'done'; readonly mesh: string; readonly target: Target }
    | { readonly kind: 'move'; readonly mesh: string; readonly target: Target; readonly move: Move }
    | { readonly kind: 'stay'; readonly code: string; readonly message: string };
}

/** A mesh that the gateway is to join, as it will be configured. */
export interface Joined {
  readonly mesh: string;
  readonly certificate: MeshCertificate;
  /** The document that is applied; absent if a MeshCertificate exists that was not made here. */
  readonly document?: KubeObject | undefined;
  readonly rules: TargetRules | undefined;
}

/** Whether, how and into which mesh a Mapping moves; judged by the agent's own rules. */
export function judge(upstream: UpstreamFinding, joined: readonly Joined[], snapshot: OnboardSnapshot): MoveVerdict {
  const { mapping, membership, problem } = upstream;
  const stay = (code: string, message: string): MoveVerdict => ({ upstream, outcome: { kind: 'stay', code, message } });
  const owner = joined.find((one) => wantsAlready(one, mapping, snapshot));
  if (owner) return judgeBy(owner, upstream, snapshot, mapping);
  if (problem) return stay(problem.code, problem.message);
  if (membership === undefined) return stay('ERR_TARGET_UNMESHED', 'no pod behind it is in a mesh');
  const one = joined.find(({ mesh }) => mesh === membership);
  if (!one) return stay('ERR_TARGET_OTHER_MESH', notJoined(membership));
  const labels = emissaryConfigOf(one.certificate.spec).mappings?.selector.matchLabels;
  if (!labels) {
    const { name } = one.certificate.metadata;
    const message = `MeshCertificate ${name} has no mappings.selector, so it changes no Mapping; add one`;
    return stay('ERR_TARGET_UNSELECTED', message);
  }
  const contextName = emissaryConfigOf(one.certificate.spec).tlsContext.name;
  const { namespace = '' } = one.certificate.metadata;
  const selection = { contextName, labels, namespace, service: serviceOf(upstream) };
  return judgeBy(one, upstream, snapshot, moved(mapping, selection), selection);
}

const notJoined = (mesh: string): string =>
  `its pods are in ${mesh}, which is not joined here; add --mesh ${mesh}, or check that its control plane was found`;

/** Named or selected before any move: the agent or the user maintains it. */
function wantsAlready({ certificate }: Joined, mapping: KubeObject, { contexts }: OnboardSnapshot): boolean {
  const { tls } = mappingSpec(mapping);
  const { namespace = '', name } = certificate.metadata;
  const owner = `${namespace}.${name}`;
  const own = contexts.filter(({ metadata }) => metadata.labels?.['meshcert.dev/owner'] === owner);
  if (typeof tls === 'string' && own.some(({ metadata }) => metadata.name === tls)) return true;
  const selector = emissaryConfigOf(certificate.spec).mappings?.selector.matchLabels;
  return selector !== undefined && Object.entries(selector).every(([k, v]) => mapping.metadata.labels?.[k] === v);
}

/** A Mapping moves only to a context that exists by then. */
function willStand({ document, rules }: Joined, target: Target, { contexts }: OnboardSnapshot): boolean {
  if (document || !rules || rules.listed.some(({ id }) => id === target.sni)) return true;
  return contexts.some(({ metadata }) => metadata.name === target.contextName);
}

function judgeBy(
  one: Joined,
  upstream: UpstreamFinding,
  snapshot: OnboardSnapshot,
  mapping: KubeObject,
  selection?: Move,
): MoveVerdict {
  const { mesh, certificate, rules } = one;
  const { tlsContext, mappings } = emissaryConfigOf(certificate.spec);
  const { contexts, services, endpointSlices, pods } = snapshot;
  const bare = selection ? withoutTls(mapping, upstream.context) : mapping;
  const [verdict] = judgeMappings(
    {
      namespace: certificate.metadata.namespace ?? '',
      contextName: tlsContext.name,
      sni: tlsContext.sni,
      ambassadorIds: tlsContext.ambassadorIds,
      selector: mappings?.selector.matchLabels,
      rules,
    },
    { mappings: [bare], contexts, services, endpointSlices, pods },
  );
  if (!verdict) {
    const message = `MeshCertificate ${certificate.metadata.name} would not select it; check mappings.namespaces`;
    return { upstream, outcome: { kind: 'stay', code: 'ERR_TARGET_UNSELECTED', message } };
  }
  const { outcome } = verdict;
  if ('code' in outcome) {
    const message = outcome.message.replace(/^\S+ \S+ cannot use the certificate: /, '');
    return { upstream, outcome: { kind: 'stay', code: outcome.code, message } };
  }
  const { target } = outcome;
  if (selection && !willStand(one, target, snapshot)) {
    const message = `its TLSContext ${target.contextName} does not exist, and MeshCertificate ${certificate.metadata.name} was not created by onboard; list ${target.sni} under its targets first`;
    return { upstream, outcome: { kind: 'stay', code: 'ERR_TARGET_NOT_LISTED', message } };
  }
  if (!selection) return { upstream, outcome: { kind: 'done', mesh, target } };
  return { upstream, outcome: { kind: 'move', mesh, target, move: { ...selection, contextName: target.contextName } } };
}

/**
 * How it would be judged if the move had not set `tls` yet; a `tls` that was there before still belongs to somebody
 * else.
 */
function withoutTls(mapping: KubeObject, before: string | undefined): KubeObject {
  const { tls: _, ...spec } = fields(mapping.spec);
  return { ...mapping, spec: before === undefined ? spec : { ...spec, tls: before } };
}

function serviceOf({ host, port }: UpstreamFinding): string {
  return `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
