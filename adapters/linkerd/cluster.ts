import { parse } from 'yaml';
import {
  type Account,
  type ClusterObjects,
  containerNames,
  containersOf,
  type Discover,
  type Installation,
  type Pods,
  versionOf,
  workloadSpec,
} from '../../src/mesh/cluster.ts';
import type { Check, CheckedObjects } from '../../src/mesh/object-check.ts';
import { fields, hasLabels, type KubeObject, text } from '../../src/objects/objects.ts';

/** Where proxies accept each other's connections, in their own protocol. */
const PROXY_PORT = 4143;

export const checks: readonly Check<CheckedObjects>[] = [
  {
    code: 'MC3001',
    severity: 'error',
    title: 'Without a server name, Linkerd’s proxies pass TLS through',
    *run({ tls }) {
      for (const { object, sni } of tls) {
        if (sni !== undefined) continue;
        yield {
          object,
          message:
            'a proxy terminates TLS only when the server name is its own identity; without one, the application gets a TLS handshake where it expects a request',
          fix: `set sni to <account>.<namespace>.serviceaccount.identity.<control plane>.<trust domain>, one ${object.kind} for each account`,
        };
      }
    },
  },
  {
    code: 'MC3002',
    severity: 'error',
    title: 'Linkerd’s proxies support only TLS 1.3',
    *run({ tls }) {
      for (const { object, maxTlsVersion } of tls) {
        if (maxTlsVersion === 'v1.3') continue;
        const why = maxTlsVersion
          ? `max_tls_version is ${maxTlsVersion}`
          : 'without max_tls_version Envoy goes no higher than TLS 1.2 towards upstreams';
        yield {
          object,
          message: `${why}: every handshake fails`,
          fix: 'set min_tls_version and max_tls_version to v1.3',
        };
      }
    },
  },
  {
    code: 'MC3003',
    severity: 'error',
    title: 'Port 4143 accepts only Linkerd’s own proxies',
    *run({ routes }) {
      for (const { object, port } of routes) {
        if (port !== PROXY_PORT) continue;
        yield {
          object,
          message: 'that port requires a transport header after TLS, which the gateway does not send',
          fix: 'use the application’s own port',
        };
      }
    },
  },
  {
    code: 'MC3004',
    severity: 'error',
    title: 'The port is opaque: its proxy does not terminate TLS',
    *run(objects) {
      for (const { object, upstream, port } of objects.routes) {
        const holder = [
          objects.find('Service', upstream),
          ...podsOf(objects, upstream),
          objects.all('Namespace').find(({ metadata }) => metadata.name === upstream.namespace),
        ].find((one) => opaquePorts(one)?.includes(port));
        if (!holder) continue;
        yield {
          object,
          message: `${holder.kind} ${holder.metadata.name} says config.linkerd.io/opaque-ports: ${holder.metadata.annotations?.['config.linkerd.io/opaque-ports']}, so port ${port} gets the TLS handshake itself`,
          fix: 'remove the port from the annotation',
        };
      }
    },
  },
  {
    code: 'MC3005',
    severity: 'error',
    title: 'Linkerd accepts only ECDSA keys',
    *run({ tls }) {
      for (const { object, keyType } of tls) {
        if (keyType !== 'rsa') continue;
        yield {
          object,
          message:
            'its identity has an RSA key; the identity service never issues one, and proxies refuse it in TLS 1.3',
          fix: 'use the certificate that Linkerd’s identity service issues for a P-256 key',
        };
      }
    },
  },
  {
    code: 'MC3006',
    severity: 'error',
    title: 'The server name is that of a workload in another namespace',
    *run({ routes }) {
      for (const { object, tls, upstream } of routes) {
        const [, namespace] = (tls.sni ?? '').split('.');
        if (!namespace || upstream.namespace === namespace) continue;
        yield {
          object,
          message: `its ${tls.object.kind} asks for ${tls.sni}, but its service is in the namespace ${upstream.namespace}: the proxy there has another name and passes TLS through`,
          fix: `use a ${tls.object.kind} whose sni is the identity of this workload`,
        };
      }
    },
  },
  {
    code: 'MC3007',
    severity: 'error',
    title: 'Linkerd gives no identity to an account with a dot in its name',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const name = text(fields(fields(fields(object.spec).linkerd).serviceAccount).name);
        if (!name?.includes('.')) continue;
        yield {
          object,
          message: `the ServiceAccount ${name} has a dot: its token is refused with INVALID_ARGUMENT`,
          fix: 'use an account without dots for the gateway',
        };
      }
    },
  },
];

function podsOf({ all, find }: CheckedObjects, service: { name: string; namespace: string }): KubeObject[] {
  const selector = fields(fields(find('Service', service)?.spec).selector);
  if (Object.keys(selector).length === 0) return [];
  return all('Pod').filter((pod) => pod.metadata.namespace === service.namespace && hasLabels(pod, selector));
}

function opaquePorts(object: KubeObject | undefined): number[] | undefined {
  return object?.metadata.annotations?.['config.linkerd.io/opaque-ports']?.split(',').flatMap((part) => {
    const [first = Number.NaN, last = first] = part.split('-').map(Number);
    return Number.isNaN(first) ? [] : Array.from({ length: last - first + 1 }, (_, at) => first + at);
  });
}

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

export const pods: Pods = {
  membership(pod) {
    const injected =
      pod.metadata.labels?.['linkerd.io/control-plane-ns'] !== undefined || containerNames(pod).has('linkerd-proxy');
    return injected ? { name: 'linkerd' } : undefined;
  },
  injected(workload, namespace) {
    const { labels = {}, annotations = {} } = workloadSpec(workload).template?.metadata ?? {};
    const wanted = labels['linkerd.io/inject'] ?? annotations['linkerd.io/inject'];
    const inherited = namespace?.metadata.annotations?.['linkerd.io/inject'] === 'enabled';
    return wanted === 'enabled' || (inherited && wanted !== 'disabled');
  },
  intercepts(workload) {
    const { labels, annotations } = workloadSpec(workload).template?.metadata ?? {};
    const wanted = { ...annotations, ...labels }['linkerd.io/inject'];
    return wanted === 'enabled' || wanted === 'ingress'
      ? 'remove the injection, or exclude the ports with config.linkerd.io/skip-outbound-ports'
      : undefined;
  },
  notInjected: { 'linkerd.io/inject': 'disabled' },
};
