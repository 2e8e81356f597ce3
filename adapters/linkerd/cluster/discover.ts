import { parse } from 'yaml';
import type { Account, ClusterObjects, Discover, Installation } from '../../../src/mesh/cluster.ts';
import { fields, type KubeObject, text } from '../../../src/mesh/kube-object.ts';
import { containersOf, versionOf } from '../../../src/mesh/workload.ts';

const CONFIG_MAP = 'linkerd-config';

/** One control plane of Linkerd. */
interface LinkerdInstallation extends Installation {
  readonly trustDomain: string;
  readonly clusterDomain: string;
}

/** Found by its ConfigMap `linkerd-config`, which every installation has. */
export function findLinkerd({
  configMaps,
  workloads,
}: Pick<ClusterObjects, 'configMaps' | 'workloads'>): LinkerdInstallation[] {
  return configMaps
    .filter(({ metadata }) => metadata.name === CONFIG_MAP)
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

const isSame = (a: Account, b: Account): boolean =>
  a.serviceAccount === b.serviceAccount && a.namespace === b.namespace;

export const discover: Discover<LinkerdInstallation> = {
  sign: CONFIG_MAP,
  configMaps: [CONFIG_MAP],
  reads: () => [],
  installations: findLinkerd,
  show: ({ namespace, version, trustDomain, clusterDomain }) => [
    `control plane${version === undefined ? '' : ` ${version}`} in ${namespace}`,
    `trust domain ${trustDomain}, cluster domain ${clusterDomain}`,
  ],
  configFor: ({ namespace }, serviceAccount, targets) => ({
    serviceAccount: { name: serviceAccount },
    ...(namespace === 'linkerd' ? {} : { controlPlaneNamespace: namespace }),
    ...(targets.length > 0 ? { targets, discover: true } : {}),
  }),
  withTargets(config, targets) {
    const listed = (Array.isArray(config.targets) ? config.targets : []) as Account[];
    const more = targets.filter((one) => !listed.some((old) => isSame(old, one)));
    return more.length === 0 ? config : { ...config, targets: [...listed, ...more], discover: true };
  },
};
