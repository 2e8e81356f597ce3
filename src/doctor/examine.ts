import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { usedGateways } from '../config/validate.ts';
import type { KubeObject } from '../core/object.ts';
import type { Preflight } from '../core/verify/preflight.ts';
import type { Finding } from '../gateway/diagnosis.ts';
import type { Gateway } from '../gateway/gateway.ts';
import { gateways } from '../gateways.ts';
import { fields } from '../mesh/kube-object.ts';
import type { LiveObjects } from './live.ts';
import { lookAtLeases, lookForAgents } from './looks/agents.ts';
import { lookAtApi, lookAtDefinitions } from './looks/api.ts';
import { LOOKS, type Seen, type Tools } from './looks/look.ts';
import { lookAtMeshes, type MeshOptions } from './looks/meshes.ts';
import { lookAtObjects, lookAtStatus } from './looks/publication.ts';
import { lookAtRights, lookAtSharedNames } from './looks/rights.ts';
import { lookAtVerdicts } from './looks/verdicts.ts';
import { agentOf, findAgents } from './observed/agents.ts';

export interface ExamineOptions extends Omit<MeshOptions, 'agents' | 'ownRights'> {
  /** Reads the cluster; called once the API server answers. */
  readonly read: () => Promise<LiveObjects>;
  /** A valid MeshCertificate with its defaults, or undefined. */
  readonly parse: (object: KubeObject) => MeshCertificate | undefined;
  /** The CustomResourceDefinition of this version. */
  readonly definition: KubeObject;
  /** Flags of an agent that reads its one MeshCertificate from its environment. */
  readonly environmentFlags: readonly string[];
  /** False: there is none in this cluster, and the user's own rights are checked. */
  readonly agent: boolean;
  /** The API server's clock minus this one, in ms, from its last response. */
  readonly skewMs: () => number | undefined;
  readonly preflight: Preflight;
}

export interface Examination {
  readonly live: LiveObjects;
  readonly seen: readonly Seen[];
}

export const NOTHING: LiveObjects = {
  objects: [],
  whole: new Set(),
  listed: new Set(),
  absent: new Set(),
  skipped: [],
};

/** Examines the running system: the API server, the agent, and each mesh, which is tried as the agent would. */
export async function examine(tools: Tools, options: ExamineOptions): Promise<Examination> {
  const api = await lookAtApi(tools, options.skewMs);
  if (api.some(({ code, state }) => code === 'MC6001' && state === 'failed')) return { live: NOTHING, seen: api };
  const live = await options.read();
  const all = (kind: string) => live.objects.filter((object) => object.kind === kind);
  const certificates = all('MeshCertificate');
  const valid = certificates.flatMap((object) => {
    const certificate = options.parse(object);
    return certificate ? [{ object, certificate }] : [];
  });
  const agents = options.agent ? findAgents(live.objects, options.environmentFlags) : [];
  const serverNow = () => tools.clock.now() + (options.skewMs() ?? 0);
  const isPerTarget = ({ spec }: MeshCertificate) =>
    options.adapters.some(({ mesh, sniPerTarget }) => mesh === spec.mesh.name && sniPerTarget === true);
  const known = (kind: string) => live.listed.has(kind);
  const seen = [
    ...api,
    ...(await lookAtDefinitions(tools, options.definition, live.absent, usedBy(certificates))),
    ...(options.agent ? lookForAgents(agents, certificates, all('Pod')) : []),
    ...(await Promise.all(agents.map((agent) => lookAtLeases(tools, agent, serverNow)))).flat(),
    ...(
      await Promise.all(
        agents.map(async (agent) => {
          const taken = valid.filter(({ object }) => agentOf(agents, object) === agent);
          const its = taken.map(({ certificate }) => certificate);
          return [
            await lookAtRights(tools, agent, its, options.adapters),
            ...(await lookAtSharedNames(tools, agent, its, options.adapters)),
          ];
        }),
      )
    ).flat(),
    ...certificates.map(lookAtStatus),
    ...valid
      .filter(({ object }) => fields(object.spec).paused !== true)
      .flatMap(({ object, certificate }) =>
        lookAtObjects(certificate, object, live.objects, known, isPerTarget(certificate)),
      ),
    ...(await lookAtVerdicts(valid, live.objects, { ...options, now: tools.clock.now() })),
    ...(await lookAtMeshes(tools, valid, { ...options, agents, ownRights: !options.agent })),
  ];
  return { live, seen };
}

const usedBy = (certificates: readonly KubeObject[]): readonly Gateway[] =>
  gateways.filter(({ kind }) =>
    certificates.some(({ spec }) => usedGateways(fields(spec), gateways).some((gateway) => gateway.kind === kind)),
  );

/** The failures, in addition to the findings in objects. */
export function findingsOf(seen: readonly Seen[]): Finding[] {
  return seen.flatMap(({ code, state, object, message, fix = '', severity }) => {
    const look = LOOKS.find((one) => one.code === code);
    if (!look || state !== 'failed') return [];
    return [{ code, severity: severity ?? look.severity, object, message, fix }];
  });
}
