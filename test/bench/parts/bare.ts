import { type Channel, openChannel } from '../../../src/grpc/channel.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { connect } from '../../../src/kube/client.ts';
import { FIELD_MANAGER } from '../../../src/objects/objects.ts';
import { createCsr } from '../../../src/pki/csr.ts';
import { formatPem } from '../../../src/pki/der.ts';
import { PrivateKey } from '../../../src/pki/key.ts';
import { istioToken } from '../../support/istio-token.ts';
import { inLanes } from '../statistics.ts';
import { preciseNow, servePart } from './part.ts';

export const BARE_AGENT = 'bare';

export interface BareOptions {
  readonly kubeconfig: string;
  readonly namespace: string;
  readonly ca: { readonly address: string; readonly serverName: string; readonly rootPem: string };
  readonly count: number;
  readonly concurrency: number;
}

let options: BareOptions;
let kube: Kube;
let channel: Channel;

/** The minimum of a rotation: a key, a request for a certificate, one PATCH. No checks, no watches, no state. */
async function rotate(name: string): Promise<void> {
  const { certificate, key } = await obtain();
  await patch(name, certificate, key, options.ca.rootPem);
}

/** The minimum of a first issue: the same, with two creates and one status. */
async function issueFirst(at: number): Promise<void> {
  const { namespace, ca } = options;
  const { certificate, key } = await obtain();
  const secret = (name: string, type: string, texts: Record<string, string>) => ({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace }, type },
    data: Object.fromEntries(Object.entries(texts).map(([field, text]) => [field, base64(text)])),
  });
  const how = { fieldManager: FIELD_MANAGER };
  await kube.create(secret(`gw-${at}-ca`, 'Opaque', { 'tls.crt': ca.rootPem, 'ca.crt': ca.rootPem }), how);
  const pair = { 'tls.crt': certificate, 'tls.key': key, 'ca.crt': ca.rootPem };
  await kube.create(secret(`gw-${at}-identity`, 'kubernetes.io/tls', pair), how);
  const condition = {
    ...{ type: 'Ready', status: 'True', reason: 'Serving', message: 'It is published.' },
    lastTransitionTime: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
  };
  const object = {
    ...{ apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata: { name: `gw-${at}`, namespace } },
    status: { mesh: 'istio', roots: [], mappings: [], targets: [], rotations: 0, conditions: [condition] },
  };
  await kube.apply(object, { ...how, force: true, subresource: 'status' });
}

async function obtain(): Promise<{ readonly certificate: string; readonly key: string }> {
  const { namespace } = options;
  const key = PrivateKey.generate();
  const id = `spiffe://cluster.local/ns/${namespace}/sa/gateway`;
  const request = { csr: formatPem('CERTIFICATE REQUEST', createCsr(key, { uris: [id] })), validity_duration: '0' };
  const token = istioToken({ namespace, account: 'gateway' });
  const answer = await channel.unary<{ cert_chain: readonly string[] }>(request, {
    method: 'istio.v1.auth.IstioCertificateService/CreateCertificate',
    metadata: { authorization: `Bearer ${token}`, clusterid: 'Kubernetes' },
    deadlineMs: 10_000,
  });
  return { certificate: answer.cert_chain[0] ?? '', key: key.toPem() };
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');

async function patch(name: string, certificate: string, key: string, roots: string): Promise<void> {
  const { namespace } = options;
  const object = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace },
    type: 'kubernetes.io/tls',
    data: { 'tls.crt': base64(certificate), 'tls.key': base64(key), 'ca.crt': base64(roots) },
  };
  await kube.apply(object, { fieldManager: FIELD_MANAGER, force: true });
}

async function timed(act: (at: number) => Promise<void>) {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await inLanes(options.concurrency, options.count, act);
  const { user, system } = process.cpuUsage(cpu);
  return { ms: performance.now() - start, cpuMs: (user + system) / 1000 };
}

const methods = {
  start(given: BareOptions) {
    options = given;
    kube = connect({ kubeconfigText: given.kubeconfig, userAgent: BARE_AGENT });
    const { address, serverName, rootPem } = given.ca;
    channel = openChannel({ address, tls: { ca: rootPem, serverName } });
  },
  /** All `count` of them, `concurrency` at a time. */
  rotateAll: () => timed((at) => rotate(`bare-${at}`)),
  issueAll: () => timed(issueFirst),
  /** One PATCH of new bytes; returns when it was sent. */
  async patchOne({ name }: { name: string }) {
    const key = PrivateKey.generate().toPem();
    const at = preciseNow();
    await patch(name, options.ca.rootPem, key, options.ca.rootPem);
    return at;
  },
};

export type Bare = typeof methods;
servePart(methods);
