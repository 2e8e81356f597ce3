import { parse } from 'yaml';
import {
  type ClusterObjects,
  containerNames,
  containersOf,
  type Discover,
  envOf,
  type Installation,
  labelsOf,
  type Membership,
  type Pods,
  versionOf,
  workloadSpec,
} from '../../src/mesh/cluster.ts';
import type { Check, CheckedObjects } from '../../src/mesh/object-check.ts';
import { fields, type KubeObject, type ObjectRef, text } from '../../src/objects/objects.ts';

/** A permissive sidecar requires one of these if a port is declared as HTTP. */
const SIDECAR_ALPN = /^(istio|istio-http\/1\.[01]|istio-h2)$/;

export const checks: readonly Check<CheckedObjects>[] = [
  {
    code: 'MC2001',
    severity: 'warning',
    title: 'Permissive sidecars refuse TLS without an Istio ALPN protocol',
    *run({ tls }) {
      for (const { object, alpnProtocols } of tls) {
        if (alpnProtocols.some((one) => SIDECAR_ALPN.test(one))) continue;
        yield {
          object,
          message:
            'under PeerAuthentication PERMISSIVE, the default, a sidecar closes TLS connections that offer no Istio ALPN protocol, or passes them to the application; under STRICT it treats them as raw TCP on ports that it detects',
          fix: 'set alpn_protocols: istio-http/1.1,istio,http/1.1 (for gRPC: istio-h2,istio,h2)',
        };
      }
    },
  },
  {
    code: 'MC2002',
    severity: 'error',
    title: 'istio-peer-exchange announces a framing that the gateway does not support',
    *run({ tls }) {
      for (const { object, alpnProtocols } of tls) {
        if (!alpnProtocols.includes('istio-peer-exchange')) continue;
        yield {
          object,
          message:
            'a sidecar that agrees to istio-peer-exchange waits for metadata before the request, which the gateway never sends',
          fix: 'remove it from alpn_protocols',
        };
      }
    },
  },
  {
    code: 'MC2003',
    severity: 'warning',
    title: 'A route with TLS and without a port uses 443',
    *run({ routes }) {
      for (const { object, service, namesPort } of routes) {
        if (namesPort) continue;
        yield {
          object,
          message: `service ${service} names no port, and with TLS that means 443; workloads of Istio listen on their own ports, so the connection hangs`,
          fix: 'write the port of the Service, such as https://web.shop:80',
        };
      }
    },
  },
  {
    code: 'MC2004',
    severity: 'error',
    title: 'The upstream is in an ambient namespace',
    *run({ routes, all }) {
      for (const { object, upstream } of routes) {
        const namespace = all('Namespace').find(({ metadata }) => metadata.name === upstream.namespace);
        if (namespace?.metadata.labels?.['istio.io/dataplane-mode'] !== 'ambient') continue;
        yield {
          object,
          message: `the namespace ${upstream.namespace} is ambient: ztunnel passes TLS on its application ports through as bytes, or denies it under STRICT; plain mTLS does not reach it`,
          fix: 'enroll the gateway in ambient mode (istio.io/dataplane-mode: ambient) and send plaintext, or give the workload a sidecar',
        };
      }
    },
  },
  {
    code: 'MC2006',
    severity: 'error',
    title: 'The certificate of istiod is not for this address',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const ca = fields(fields(fields(object.spec).istio).ca);
        const host = (text(ca.address) ?? '').replace(/:\d+$/, '');
        const unnamed = host.endsWith('.cluster.local') || /^[\d.]+$|^\[/.test(host);
        if (!unnamed || ca.serverName !== undefined) continue;
        yield {
          object,
          message: `the certificate of istiod is for names such as istiod.istio-system.svc, and never for ${host}: the connection fails`,
          fix: 'use istiod.istio-system.svc:15012, or set spec.istio.ca.serverName to that name',
        };
      }
    },
  },
  {
    code: 'MC2007',
    severity: 'error',
    title: 'Port 15010 of istiod is plaintext',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const address = text(fields(fields(fields(object.spec).istio).ca).address) ?? '';
        if (!address.endsWith(':15010')) continue;
        yield {
          object,
          message: `${address} has no TLS, so the connection fails, and a token must not be sent there`,
          fix: 'use port 15012',
        };
      }
    },
  },
  {
    code: 'MC2008',
    severity: 'warning',
    title: 'istiod does not write the ConfigMap that the roots are read from',
    *run({ all }) {
      const istiods = all('Deployment').filter(isIstiod);
      if (istiods.length === 0 || !istiods.every(usesTrustBundle)) return;
      for (const object of all('MeshCertificate')) {
        const { ca } = fields(fields(object.spec).istio);
        const { file, inline, clusterTrustBundle, configMap } = fields(fields(ca).root);
        if (ca === undefined || [file, inline, clusterTrustBundle].some((one) => one !== undefined)) continue;
        const name = text(fields(configMap).name) ?? ROOT_CONFIG_MAP;
        if (name !== ROOT_CONFIG_MAP) continue;
        yield {
          object,
          message: `istiod publishes its roots as a ClusterTrustBundle (ENABLE_CLUSTER_TRUST_BUNDLE_API) and no longer writes ConfigMap ${name}: it is missing, or stays as it was before and does not follow the next change of the roots`,
          fix: 'set spec.istio.ca.root to {clusterTrustBundle: {}}',
        };
      }
    },
  },
];

/** One control plane of Istio that signs certificates, or istio-csr that does it in its place. */
interface IstioInstallation extends Installation {
  readonly signer: 'istiod' | 'istio-csr';
  /** `default` if there is only one. */
  readonly revision: string;
  /** `host:port` of its CA. */
  readonly address: string;
  readonly trustDomain: string;
  /** istiod's name of this cluster, if it is not the default. */
  readonly clusterId: string | undefined;
  /** Where it publishes its roots. */
  readonly publishes: 'ConfigMap' | 'ClusterTrustBundle';
}

type Objects = Pick<ClusterObjects, 'workloads' | 'services' | 'configMaps'>;

/** Where istiod and istio-csr write their roots, in every namespace. */
export const ROOT_CONFIG_MAP = 'istio-ca-root-cert';

const CA_PORT = 15012;
const CSR_PORT = 443;

const isIstiod = (workload: KubeObject): boolean =>
  workload.kind === 'Deployment' &&
  (labelsOf(workload).app === 'istiod' || /^istiod(-|$)/.test(workload.metadata.name));

const isCsr = (workload: KubeObject): boolean =>
  workload.kind === 'Deployment' &&
  [labelsOf(workload).app, labelsOf(workload)['app.kubernetes.io/name']].includes('cert-manager-istio-csr');

/** Whether it publishes its roots as a ClusterTrustBundle, in place of a ConfigMap in each namespace. */
const usesTrustBundle = (istiod: KubeObject): boolean =>
  envOf(containersOf(istiod)[0], 'ENABLE_CLUSTER_TRUST_BUNDLE_API') === 'true';

/** The mesh configuration of each revision. */
function meshConfigs(workloads: readonly KubeObject[]): ObjectRef[] {
  return workloads.filter(isIstiod).map((workload) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    namespace: workload.metadata.namespace,
    name: meshConfigName(revisionOf(workload)),
  }));
}

/** The one to ask first: istio-csr if it exists, since istiod signs nothing there; then the default revision. */
export function findIstio(objects: Objects): IstioInstallation[] {
  const istiods = objects.workloads.filter(isIstiod).map((workload) => istiodOf(workload, objects));
  const trustDomain = istiods[0]?.trustDomain ?? 'cluster.local';
  const signers = objects.workloads.filter(isCsr).map((workload) => csrOf(workload, trustDomain));
  const rank = ({ revision, problem }: IstioInstallation) => (problem ? 2 : revision === 'default' ? 0 : 1);
  return [...signers, ...istiods.toSorted((a, b) => rank(a) - rank(b))];
}

function istiodOf(workload: KubeObject, { services, configMaps }: Objects): IstioInstallation {
  const { namespace = '' } = workload.metadata;
  const revision = revisionOf(workload);
  const [pilot] = containersOf(workload);
  const service = services.find(
    ({ metadata }) => metadata.namespace === namespace && metadata.name === serviceName(revision),
  );
  const config = configMaps.find(
    ({ metadata }) => metadata.namespace === namespace && metadata.name === meshConfigName(revision),
  );
  const clusterId = envOf(pilot, 'CLUSTER_ID');
  return {
    mesh: 'istio',
    signer: 'istiod',
    namespace,
    revision,
    version: versionOf(pilot?.image),
    address: `${service?.metadata.name ?? serviceName(revision)}.${namespace}.svc:${CA_PORT}`,
    trustDomain: trustDomainOf(config),
    clusterId: clusterId === 'Kubernetes' ? undefined : clusterId,
    publishes: usesTrustBundle(workload) ? 'ClusterTrustBundle' : 'ConfigMap',
    problem:
      envOf(pilot, 'ENABLE_CA_SERVER') === 'false'
        ? 'its CA is off (ENABLE_CA_SERVER=false): another signer, such as istio-csr, must issue'
        : undefined,
  };
}

function csrOf({ metadata, ...rest }: KubeObject, trustDomain: string): IstioInstallation {
  const [container] = containersOf({ metadata, ...rest });
  const { name, namespace = '' } = metadata;
  return {
    mesh: 'istio',
    signer: 'istio-csr',
    namespace,
    revision: 'default',
    version: versionOf(container?.image),
    address: `${name}.${namespace}.svc:${CSR_PORT}`,
    trustDomain,
    clusterId: undefined,
    publishes: 'ConfigMap',
    problem: undefined,
  };
}

const revisionOf = (workload: KubeObject): string =>
  workload.metadata.labels?.['istio.io/rev'] ?? labelsOf(workload)['istio.io/rev'] ?? 'default';

const serviceName = (revision: string): string => (revision === 'default' ? 'istiod' : `istiod-${revision}`);
const meshConfigName = (revision: string): string => (revision === 'default' ? 'istio' : `istio-${revision}`);

function trustDomainOf(config: KubeObject | undefined): string {
  try {
    return text(fields(parse(text(fields(config?.data).mesh) ?? '')).trustDomain) ?? 'cluster.local';
  } catch {
    return 'cluster.local';
  }
}

const placed = ({ namespace, revision }: { readonly namespace: string; readonly revision: string }): string =>
  revision === 'default' ? namespace : `${namespace} (${revision})`;

export const discover: Discover<IstioInstallation> = {
  sign: 'istiod',
  configMaps: [],
  reads: ({ workloads }) => meshConfigs(workloads),
  installations: findIstio,
  show({ signer, namespace, version, revision, address, trustDomain }) {
    const release = version === undefined ? '' : ` ${version}`;
    return [
      `${signer}${release} in ${namespace}${signer === 'istiod' ? `, revision ${revision}` : ''}`,
      `CA ${address}, trust domain ${trustDomain}`,
    ];
  },
  configFor: ({ address, clusterId, trustDomain, publishes }, serviceAccount) => ({
    ca: {
      address,
      serviceAccount,
      ...(clusterId === undefined ? {} : { clusterId }),
      ...(publishes === 'ConfigMap' ? {} : { root: { clusterTrustBundle: {} } }),
    },
    ...(trustDomain === 'cluster.local' ? {} : { trustDomain }),
  }),
  remarks({ namespaces }) {
    const injected = injectedNamespaces(namespaces).map(placed);
    const ambient = ambientNamespaces(namespaces);
    return [
      ...(injected.length > 0 ? [`sidecars in ${injected.join(', ')}`] : []),
      ...(ambient.length > 0 ? [`ambient mode in ${ambient.join(', ')}`] : []),
    ];
  },
};

/** Namespaces whose pods are in the mesh without a sidecar: mTLS from outside does not reach them that way. */
export const ambientNamespaces = (namespaces: readonly KubeObject[]): string[] =>
  namespaces
    .filter(({ metadata }) => metadata.labels?.['istio.io/dataplane-mode'] === 'ambient')
    .map(({ metadata }) => metadata.name);

/** Namespaces whose pods get a sidecar, each with the revision that it requests. */
export const injectedNamespaces = (namespaces: readonly KubeObject[]): { namespace: string; revision: string }[] =>
  namespaces.flatMap(({ metadata: { name, labels = {} } }) => {
    if (labels['istio-injection'] === 'enabled') return [{ namespace: name, revision: 'default' }];
    const revision = labels['istio.io/rev'];
    return revision === undefined || labels['istio-injection'] === 'disabled' ? [] : [{ namespace: name, revision }];
  });

const AMBIENT: Membership = {
  name: 'ambient',
  refusal: {
    code: 'ERR_TARGET_AMBIENT',
    message:
      "its pods are in ambient mode, where mTLS comes from ztunnel and not from the gateway; label the gateway's own pods istio.io/dataplane-mode=ambient and leave the route as it is",
  },
};

const isAmbient = (namespace: KubeObject | undefined): boolean =>
  namespace?.metadata.labels?.['istio.io/dataplane-mode'] === 'ambient';

const hasInjection = (namespace: KubeObject | undefined): boolean => {
  const { labels = {} } = namespace?.metadata ?? {};
  return labels['istio-injection'] === 'enabled' || labels['istio.io/rev'] !== undefined;
};

export const pods: Pods = {
  membership(pod, namespace) {
    const { labels = {}, annotations = {} } = pod.metadata;
    if (containerNames(pod).has('istio-proxy') || annotations['sidecar.istio.io/status'] !== undefined) {
      return { name: 'istio' };
    }
    const mode = labels['istio.io/dataplane-mode'];
    const enrolled = mode === undefined ? isAmbient(namespace) : mode === 'ambient';
    return annotations['ambient.istio.io/redirection'] === 'enabled' || enrolled ? AMBIENT : undefined;
  },
  injected(workload, namespace) {
    const { labels = {}, annotations = {} } = workloadSpec(workload).template?.metadata ?? {};
    const wanted = labels['sidecar.istio.io/inject'] ?? annotations['sidecar.istio.io/inject'];
    return wanted === 'true' || (hasInjection(namespace) && wanted !== 'false');
  },
  intercepts(workload) {
    const { labels, annotations } = workloadSpec(workload).template?.metadata ?? {};
    const of = { ...annotations, ...labels };
    const sidecar =
      of['sidecar.istio.io/inject'] === 'true' || containersOf(workload).some(({ name }) => name === 'istio-proxy');
    return sidecar && of['traffic.sidecar.istio.io/includeOutboundIPRanges'] !== ''
      ? 'remove the injection, or set traffic.sidecar.istio.io/includeOutboundIPRanges: ""'
      : undefined;
  },
  notInjected: { 'sidecar.istio.io/inject': 'false' },
};
