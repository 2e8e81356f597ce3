import { type KubeObject, OWNER_LABEL } from '../../../core/object.ts';
import { fields } from '../../../mesh/kube-object.ts';
import type { JoinRequest } from '../../onboarding.ts';
import { ownerLabel } from '../../owner.ts';
import type { EmissaryEnv } from '../reading/env.ts';
import { contextNameProblem } from '../spec/names.ts';
import type { EmissaryInstallation } from './installations.ts';

/** Fields of a new MeshCertificate for the Mappings of this gateway. */
export function specFor(request: JoinRequest<EmissaryInstallation>): Readonly<Record<string, unknown>> {
  const { installation, name, namespaces } = request;
  const { ambassadorId, labelSelector } = installation.env;
  const contextName = freeContextName(request);
  const tlsContext = {
    ...(contextName === name ? {} : { name: contextName }),
    ...(ambassadorId === 'default' ? {} : { ambassadorIds: [ambassadorId] }),
  };
  const labels = selectorLabels(labelSelector);
  const elsewhere = namespaces.some((one) => one !== installation.home);
  return {
    ...(Object.keys(tlsContext).length > 0 ? { tlsContext } : {}),
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
    mappings: {
      selector: { matchLabels: request.labels },
      ...(elsewhere ? { namespaces: [...new Set(namespaces)].sort() } : {}),
    },
  };
}

/** Extended by the namespaces of Mappings that came since, or by this gateway if it was not used so far. */
export function extendedSpec(
  spec: Readonly<Record<string, unknown>>,
  request: JoinRequest<EmissaryInstallation>,
): Readonly<Record<string, unknown>> {
  if (spec.mappings === undefined && fields(spec.tlsContext).enabled === false) {
    const { tlsContext: _, ...others } = spec;
    return { ...others, ...specFor(request) };
  }
  const mappings = fields(spec.mappings);
  const before = Array.isArray(mappings.namespaces) ? mappings.namespaces.map(String) : [request.installation.home];
  const namespaces = [...new Set([...before, ...request.namespaces])].sort();
  if (mappings.selector === undefined || namespaces.length === before.length) return spec;
  return { ...spec, mappings: { ...mappings, namespaces } };
}

/** The labels without which this gateway would ignore our objects: the equalities of its selector. */
export function selectorLabels(selector: EmissaryEnv['labelSelector']): Record<string, string> {
  const terms = (selector ?? '').split(',').map((term) => /^\s*([^=!\s]+)\s*==?\s*(\S+)\s*$/.exec(term));
  return Object.fromEntries(terms.flatMap((match) => (match?.[1] && match[2] ? [[match[1], match[2]]] : [])));
}

/** Names of contexts are global: the mesh's own, unless it is taken. */
function freeContextName({ name, installation, gatewayObjects }: JoinRequest<EmissaryInstallation>): string {
  const owner = ownerLabel({ namespace: installation.home, name });
  const isForeign = ({ kind, metadata }: KubeObject) =>
    kind === 'TLSContext' && metadata.labels?.[OWNER_LABEL] !== owner;
  const taken = new Set(gatewayObjects.filter(isForeign).map(({ metadata }) => metadata.name));
  const candidates = [name, `${name}-mtls`, `meshcert-${name}`];
  return candidates.find((one) => !taken.has(one) && !contextNameProblem(one)) ?? `${name}-${installation.home}`;
}
