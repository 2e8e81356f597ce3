import { linkerd } from '../../../adapters/linkerd/adapter.ts';
import { connect } from '../../../src/kube/client.ts';
import { isIssuer } from '../../../src/mesh/adapter.ts';
import type { Identity } from '../../../src/mesh/identity.ts';
import type { KubeObject } from '../../../src/objects/objects.ts';
import { formatCertificates } from '../../../src/pki/certificate.ts';
import { hostFor } from '../../support/host.ts';
import * as made from '../../support/onboard-cluster.ts';
import { startConsul } from '../servers/consul.ts';
import { createKubernetesMethod, createServiceToken } from '../servers/consul-levers.ts';
import { type Istiod, startIstiod } from '../servers/istiod.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';
import { type LinkerdJudge, startLinkerdJudge } from '../servers/linkerd-judge.ts';
import { GATEWAYS, SHOP, type UpstreamOptions } from './gateway-lab.ts';
import { startIstioWorkload } from './istio-workload.ts';

/** A real mesh as onboarding finds it, and the certificate that it has given to its workload `web`. */
export interface OnboardMesh {
  readonly name: 'istio' | 'consul' | 'linkerd';
  readonly upstream: UpstreamOptions;
  /** Labels and annotations that its injector leaves on a pod. */
  readonly injected: Readonly<Record<string, unknown>>;
  /** What its installation leaves in the API. */
  readonly installation: readonly KubeObject[];
  /** What cannot be discovered on a loopback address. */
  readonly settings: readonly string[];
  readonly agentFlags: readonly string[];
  /** The name in the certificate of the Gateway's account `edge`, as OpenSSL writes it. */
  readonly client: RegExp;
  /** Whom the BackendTLSPolicy accepts. */
  readonly accepts: (validation: Readonly<Record<string, unknown>>) => boolean;
}

/** What each mesh is started with: an API server, and where to leave what must be stopped. */
interface Place {
  readonly apiserver: KubeApiserver;
  keep<T extends AsyncDisposable>(one: T): T;
}

const MARKS = {
  istio: { annotations: { 'sidecar.istio.io/status': '{}' } },
  consul: { labels: { 'consul.hashicorp.com/connect-inject-status': 'injected' } },
  linkerd: { labels: { 'linkerd.io/control-plane-ns': 'linkerd' } },
} as const;

const served = ({ chain, key, roots }: Pick<Identity, 'chain' | 'key' | 'roots'>): UpstreamOptions => {
  const pem = formatCertificates(chain);
  return { leaf: { certificate: pem, chain: pem, key: key.toPem() }, roots: formatCertificates(roots) };
};

const hasUri = (validation: Readonly<Record<string, unknown>>, uri: RegExp): boolean => {
  const names = (validation.subjectAltNames ?? []) as readonly { readonly uri?: string }[];
  return names.length === 1 && uri.test(names[0]?.uri ?? '');
};

export async function onboardIstio({ apiserver, keep }: Place): Promise<OnboardMesh & { readonly istiod: Istiod }> {
  const istiod = keep(await startIstiod({ apiserver }));
  const account = { namespace: SHOP, serviceAccount: 'web' };
  const workload = keep(await startIstioWorkload({ ...{ apiserver, istiod }, ...account, allow: () => true }));
  return {
    ...{ name: 'istio', istiod, injected: MARKS.istio, agentFlags: [] },
    upstream: served(workload.identity),
    // istiod has its ConfigMap already.
    installation: made.istiod().filter(({ kind }) => kind !== 'ConfigMap'),
    settings: [`istio.ca.address=${istiod.secureAddress}`, `istio.ca.serverName=${istiod.serverName}`],
    client: new RegExp(`^URI:spiffe://cluster.local/ns/${GATEWAYS}/sa/edge$`),
    accepts: (validation) => hasUri(validation, new RegExp(`^spiffe://cluster.local/ns/${SHOP}/sa/web$`)),
  };
}

/** With TLS and ACLs, and the auth method that consul-k8s makes. */
export async function onboardConsul({ apiserver, keep }: Place): Promise<OnboardMesh> {
  const audience = 'https://kubernetes.default.svc.cluster.local';
  await apiserver.ensureNamespace('consul');
  const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'consul-auth-method' } };
  await apiserver.ensure('/api/v1/namespaces/consul/serviceaccounts', account);
  const consul = keep(await startConsul());
  await createKubernetesMethod(consul, apiserver, { name: 'consul-k8s-auth-method', audience });
  const { secret } = await createServiceToken(consul, 'web');
  const { CertPEM, PrivateKeyPEM } = await consul.api('GET', '/v1/agent/connect/ca/leaf/web', undefined, secret);
  const { Roots } = await consul.api('GET', '/v1/agent/connect/ca/roots');
  const authority: KubeObject = {
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'consul-ca-cert', namespace: 'consul' } },
    data: { 'tls.crt': Buffer.from(consul.ca.root).toString('base64') },
  };
  return {
    ...{ name: 'consul', injected: MARKS.consul, agentFlags: ['--allow-audience', audience] },
    upstream: {
      leaf: { certificate: CertPEM, chain: CertPEM, key: PrivateKeyPEM },
      roots: Roots.map(({ RootCert }: { RootCert: string }) => RootCert).join(''),
    },
    installation: [...made.consulServer({ tls: true, acls: true }), authority],
    settings: [`consul.grpc.addresses=["${consul.grpcTlsAddress}"]`],
    client: /^URI:spiffe:\/\/[^/]+\/ns\/default\/dc\/dc1\/svc\/edge$/,
    accepts: (validation) => hasUri(validation, /^spiffe:\/\/[^/]+\/ns\/default\/dc\/dc1\/svc\/web$/),
  };
}

/** The identity service is real, as far as the judge on Linkerd's own types is; the proxy before `web` is not. */
export async function onboardLinkerd({ apiserver, keep }: Place): Promise<OnboardMesh> {
  const judge = keep(await startLinkerdJudge({ apiserver }));
  const id = judge.identity(SHOP, 'web');
  const accepts = ({ hostname, subjectAltNames }: Readonly<Record<string, unknown>>) =>
    hostname === id && subjectAltNames === undefined;
  return {
    ...{ name: 'linkerd', injected: MARKS.linkerd, agentFlags: [], installation: [] },
    upstream: await linkerdUpstream(apiserver, judge, 'web'),
    settings: [`linkerd.address=${judge.tlsAddress}`],
    client: new RegExp(`^DNS:${judge.identity(GATEWAYS, 'edge').replaceAll('.', '\\.')}$`),
    accepts,
  };
}

/** Like a proxy of Linkerd for this account, with a leaf of the judge: TLS 1.3 for its own name. */
export async function linkerdUpstream(
  apiserver: KubeApiserver,
  judge: LinkerdJudge,
  account: string,
): Promise<UpstreamOptions> {
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'workload' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  const host = hostFor(kube, { namespace: SHOP });
  const opened = linkerd.open(
    linkerd.config.parse({ address: judge.tlsAddress, serviceAccount: { name: account } }),
    host,
  );
  if (!isIssuer(opened)) throw new TypeError('the identity service is asked');
  const identity = await opened.issue(AbortSignal.timeout(30_000));
  await opened[Symbol.asyncDispose]();
  return { ...served(identity), proxyOf: judge.identity(SHOP, account) };
}
