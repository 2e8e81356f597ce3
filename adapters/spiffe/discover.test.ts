import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parse } from 'yaml';
import type { KubeObject } from '../../src/objects/objects.ts';
import { discover } from './cluster.ts';

/** As the chart `spire` of the SPIFFE project installs it. */
const AGENT: KubeObject = parse(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: spire-agent, namespace: spire-system}
spec:
  template:
    spec:
      containers:
        - name: spire-agent
          image: ghcr.io/spiffe/spire-agent:1.15.3
          volumeMounts:
            - {name: spire-config, mountPath: /opt/spire/conf/agent}
            - {name: spire-agent-socket-dir, mountPath: /tmp/spire-agent/public}
      volumes:
        - {name: spire-config, configMap: {name: spire-agent}}
        - {name: spire-agent-socket-dir, hostPath: {path: /run/spire/agent-sockets, type: DirectoryOrCreate}}
`);
const config = (text: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'spire-agent', namespace: 'spire-system' },
  data: { 'agent.conf': text },
});
const JSON_FORM = '{"agent": {"socket_path": "/tmp/spire-agent/public/api.sock", "trust_domain": "example.org"}}';
const HCL_FORM = 'agent {\n  trust_domain = "example.org"\n  socket_path = "/tmp/spire-agent/public/api.sock"\n}';
const find = (workloads: readonly KubeObject[], configMaps: readonly KubeObject[]) =>
  discover.installations({
    ...{ workloads, configMaps, namespaces: [], services: [], gatewayWorkloads: [] },
    ...{ certificates: new Map(), directories: new Map() },
  });

for (const [form, text] of Object.entries({ JSON: JSON_FORM, HCL: HCL_FORM })) {
  it(`finds the socket on the node from a configuration in ${form}`, () => {
    const [found] = find([AGENT], [config(text)]);
    assert.ok(found);
    assert.equal(found.version, '1.15.3');
    assert.deepEqual(discover.configFor(found, 'gateway', []), {
      socket: '/run/spire/agent-sockets/api.sock',
      trustDomain: 'example.org',
    });
  });
}

it('assumes the usual socket where the configuration cannot be read', () => {
  const [found] = find([AGENT], []);
  assert.deepEqual(found && discover.configFor(found, 'gateway', []), {
    socket: '/run/spire/agent-sockets/spire-agent.sock',
  });
});

it('tells an agent whose Workload API is off, and whether pods can use the CSI driver', () => {
  const driver = structuredClone(AGENT) as unknown as { spec: { template: { spec: { containers: object[] } } } };
  driver.spec.template.spec.containers = [{ name: 'driver', image: 'ghcr.io/spiffe/spiffe-csi-driver:0.2.7' }];
  const [found] = find([AGENT, driver as unknown as KubeObject], [config('agent { disable_workload_api = true }')]);
  assert.match(found?.problem ?? '', /its Workload API is off/);
  assert.match(found ? discover.show(found).join() : '', /CSI driver csi\.spiffe\.io: its volume must be mounted/);
});

it('reads the configuration of agents alone', () => {
  assert.deepEqual(
    discover.reads({ workloads: [AGENT], gatewayWorkloads: [] }).map(({ name }) => name),
    ['spire-agent'],
  );
  assert.deepEqual(find([{ ...AGENT, kind: 'Deployment' }], []), []);
});

it('proposes the mount of the CSI driver, by the name that the driver has, or of the directory on the node', () => {
  const driver = structuredClone(AGENT) as unknown as { spec: { template: { spec: { containers: object[] } } } };
  const image = 'ghcr.io/spiffe/spiffe-csi-driver:0.2.7';
  driver.spec.template.spec.containers = [{ name: 'driver', image, args: ['-plugin-name', 'upstream.csi.spiffe.io'] }];
  const [byDriver] = find([AGENT, driver as unknown as KubeObject], [config(HCL_FORM)]);
  assert.ok(byDriver);
  assert.equal(discover.configFor(byDriver, 'gateway', []).socket, '/spiffe-workload-api/api.sock');
  assert.deepEqual(discover.mounts?.(byDriver), [
    {
      volume: { name: 'workload-api', csi: { driver: 'upstream.csi.spiffe.io', readOnly: true } },
      mountPath: '/spiffe-workload-api',
    },
  ]);
  const [byNode] = find([AGENT], [config(HCL_FORM)]);
  assert.deepEqual(byNode && discover.mounts?.(byNode), [
    {
      volume: { name: 'workload-api', hostPath: { path: '/run/spire/agent-sockets', type: 'Directory' } },
      mountPath: '/run/spire/agent-sockets',
    },
  ]);
});
