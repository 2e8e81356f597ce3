import { describe } from 'node:test';
import { startEnvoyGateway } from '../../sandbox/envoy-gateway/gateway.ts';
import { gatewayApiDefinitions } from '../../sandbox/kube/gateway-api.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { gatewayApiDiagnosis } from '../../src/gateway/gateway-api/diagnosis.ts';
import { connect } from '../../src/kube/client.ts';
import { type KubeObject, refOf } from '../../src/objects/objects.ts';
import type { Seen, Upstream } from '../peers/parts/gateway-lab.ts';
import { judgeGatewayTraps, type TrapLab } from './gateway-traps.ts';

/** Kinds that only the other gateway reads. */
const LEFT = ['Deployment', 'TLSContext', 'Mapping', 'Pod'];

async function startLab(): Promise<TrapLab> {
  const api = await startKubeApi({ tls: false });
  for (const definition of gatewayApiDefinitions()) api.put(definition);
  const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test', kinds: gatewayApiDiagnosis.resources });
  const upstreams = new Map<string, Upstream>();
  const gateway = await startEnvoyGateway({
    kube,
    warmingMs: 50,
    resolve(host) {
      const upstream = upstreams.get(host);
      return upstream && { host: '127.0.0.1', port: upstream.port };
    },
  });
  const isLeft = ({ kind }: KubeObject) => LEFT.includes(kind);
  return {
    log: () => '',
    ensureNamespace: async (name) => api.put({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }),
    async apply(object, upstream) {
      if (isLeft(object)) return;
      const { namespace, ...metadata } = object.metadata;
      upstreams.set(`${metadata.name}.${namespace}`, upstream);
      const { status: _, ...rest } = object;
      const place = object.kind === 'GatewayClass' ? {} : { namespace };
      await kube.apply({ ...rest, metadata: { ...metadata, ...place } } as KubeObject, {
        fieldManager: 'test',
        force: true,
      });
    },
    async remove(object) {
      // All tests have the class in common.
      if (!isLeft(object) && object.kind !== 'GatewayClass') await kube.delete(refOf(object), {});
    },
    async read(object) {
      const found = await kube.get(refOf(object), AbortSignal.timeout(5_000));
      if (!found) throw new Error(`no ${object.kind} ${object.metadata.name}`);
      return found;
    },
    async ask({ metadata }, path) {
      const proxy = gateway.proxyOf(`${metadata.namespace}/${metadata.name}`);
      if (!proxy) return { status: 0, seen: undefined };
      const answer = await fetch(proxy.url + path);
      const text = await answer.text();
      return { status: answer.status, seen: answer.status === 200 ? (JSON.parse(text) as Seen) : undefined };
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      kube.close();
      await api.stop();
    },
  };
}

describe('each trap of Gateway API in docs/checks.md on the gateway of the sandbox', () => {
  judgeGatewayTraps({ name: 'sandbox', start: startLab });
});
