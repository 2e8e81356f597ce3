import { parse } from 'yaml';
import type { KubeObject } from '../../core/object.ts';
import { fields, text } from '../../gateway/kinds.ts';
import { containersOf, versionOf } from './workload.ts';

/** One control plane of Linkerd. */
export interface LinkerdFinding {
  readonly mesh: 'linkerd';
  readonly namespace: string;
  readonly version: string | undefined;
  readonly trustDomain: string;
  readonly clusterDomain: string;
  readonly problem: string | undefined;
}

/** By its ConfigMap `linkerd-config`, which every installation has. */
export function findLinkerd({
  configMaps,
  workloads,
}: {
  readonly configMaps: readonly KubeObject[];
  readonly workloads: readonly KubeObject[];
}): LinkerdFinding[] {
  return configMaps
    .filter(({ metadata }) => metadata.name === 'linkerd-config')
    .map((config) => {
      const { namespace = '' } = config.metadata;
      const identity = workloads.find(
        ({ metadata }) => metadata.name === 'linkerd-identity' && metadata.namespace === namespace,
      );
      const values = valuesOf(config);
      const clusterDomain = text(values.clusterDomain) ?? 'cluster.local';
      return {
        mesh: 'linkerd',
        namespace,
        version: text(values.linkerdVersion) ?? versionOf(identity && containersOf(identity)[0]?.image),
        trustDomain: text(values.identityTrustDomain) ?? clusterDomain,
        clusterDomain,
        problem: text(fields(config.data).values) === undefined ? 'its ConfigMap has no key "values"' : undefined,
      };
    });
}

function valuesOf(config: KubeObject): Readonly<Record<string, unknown>> {
  try {
    return fields(parse(text(fields(config.data).values) ?? '', { maxAliasCount: 100 }));
  } catch {
    return {};
  }
}
