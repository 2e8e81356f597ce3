import { describe } from 'node:test';
import { fields, type KubeObject } from '../../src/objects/objects.ts';

import { judgeGatewayTraps, type TrapLab } from '../doctor/gateway-traps.ts';
import { envoyProxy, gateway, startGatewayLab, type Upstream } from './parts/gateway-lab.ts';
import { startIstiod } from './servers/istiod.ts';
import type { KubeApiserver } from './servers/kube-apiserver.ts';
import type { ApplyObject } from './servers/kube-client.ts';

/** Kinds that are in the base of each example and are not of Gateway API, and those that the lab has already. */
const LEFT = ['Deployment', 'TLSContext', 'Mapping', 'GatewayClass', 'Pod'];

interface RealLab extends TrapLab {
  readonly apiserver: KubeApiserver;
}

async function startLab(): Promise<RealLab> {
  const lab = await startGatewayLab();
  const real = new Map<string, ApplyObject>();
  const keyOf = ({ metadata }: KubeObject) => `${metadata.namespace}/${metadata.name}`;
  const exposed = new Set<number>();

  /** As this place needs it: Envoys as processes, listeners on ports of their own, endpoints on the loopback. */
  function placed(object: KubeObject, { port }: Upstream): ApplyObject[] {
    const { metadata, spec } = object;
    const plain = object as unknown as ApplyObject;
    if (object.kind === 'Gateway') {
      const known = real.get(keyOf(object)) ?? gateway(metadata.name);
      const { listeners } = known.spec as { listeners: unknown };
      const made: ApplyObject = { ...plain, spec: { ...fields(spec), listeners } };
      real.set(keyOf(object), made);
      return [made];
    }
    if (object.kind === 'EnvoyProxy') {
      const { backendTLS: _, ...own } = fields(envoyProxy(metadata.name, {}).spec);
      return [{ ...plain, spec: { ...own, ...fields(spec) } }];
    }
    if (object.kind === 'Backend') {
      return [{ ...plain, spec: { ...fields(spec), endpoints: [{ ip: { address: '127.0.0.1', port } }] } }];
    }
    if (object.kind !== 'Service') return [plain];
    const ports = fields(spec).ports as readonly { readonly name: string }[];
    return [
      { ...plain, spec: { ...fields(spec), selector: undefined, clusterIP: 'None' } },
      {
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: { ...metadata, labels: { 'kubernetes.io/service-name': metadata.name } },
        addressType: 'FQDN',
        ports: ports.map(({ name }) => ({ name, port })),
        endpoints: [{ addresses: ['web.localhost'], conditions: { ready: true } }],
      },
    ];
  }

  return {
    apiserver: lab.apiserver,
    log: lab.envoyGateway.log,
    ensureNamespace: (name) => lab.apiserver.ensureNamespace(name),
    async apply(object, upstream) {
      if (LEFT.includes(object.kind)) return;
      if (!exposed.has(upstream.port)) await lab.envoyGateway.expose(upstream.port);
      exposed.add(upstream.port);
      await lab.apply(...placed(object, upstream).map(({ status: _, ...one }) => one as ApplyObject));
    },
    async remove(object) {
      if (!LEFT.includes(object.kind)) await lab.remove(object as unknown as ApplyObject);
    },
    read: async (object) => (await lab.read(object as unknown as ApplyObject)) as unknown as KubeObject,
    async ask(object, path) {
      const made = real.get(keyOf(object));
      if (!made) throw new Error(`no Gateway ${keyOf(object)}`);
      return lab.ask(made, path);
    },
    [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose](),
  };
}

describe('each trap of Gateway API in docs/checks.md on the real Envoy Gateway', () => {
  judgeGatewayTraps({
    name: 'Envoy Gateway',
    start: startLab,
    async hijack(lab, act) {
      await using istiod = await startIstiod({ apiserver: (lab as RealLab).apiserver });
      await act(async (namespace) => {
        const all = (await istiod.debug('configz')) as readonly KubeObject[];
        return all
          .filter(({ kind, metadata }) => kind === 'DestinationRule' && metadata.namespace === namespace)
          .flatMap(({ spec }) => {
            const policy = fields(fields(spec).trafficPolicy);
            const ports = (policy.portLevelSettings ?? [policy]) as readonly unknown[];
            return ports.map((port) => String(fields(fields(port).tls).mode));
          });
      });
    },
  });
});
