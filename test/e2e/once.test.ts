import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type SandboxCluster, startCluster } from '../../sandbox/cluster/cluster.ts';
import { sandboxes } from '../../sandbox/meshes.ts';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { gateways } from '../../src/gateways.ts';
import type { KubeObject } from '../../src/objects/objects.ts';

/** Runs `meshcert agent --once` as its own process until it ends. */
async function runOnce(cluster: SandboxCluster, flags: readonly string[]): Promise<{ code: number; stderr: string }> {
  const kubeconfig = join(tmpdir(), `meshcert-once-${process.pid}`);
  await cluster.api.writeKubeconfig(kubeconfig);
  const args = ['agent', '--once', '-n', 'emissary', '--observe', 'names', '--kubeconfig', kubeconfig, ...flags];
  const child = spawn(process.execPath, [await builtBundle(), ...args]);
  let stderr = '';
  child.stdout.resume();
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code] = await once(child, 'close');
  await rm(kubeconfig);
  return { code, stderr };
}

async function list(cluster: SandboxCluster, path: string): Promise<(KubeObject & Record<string, unknown>)[]> {
  const response = await fetch(`${cluster.api.url}${path}`, {
    headers: { authorization: `Bearer ${cluster.api.adminToken}` },
  });
  return ((await response.json()) as { items: (KubeObject & Record<string, unknown>)[] }).items;
}

async function statusOf(cluster: SandboxCluster): Promise<PublicationStatus> {
  const [one] = await list(cluster, '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates');
  return one?.status as PublicationStatus;
}

const conditionOf = (status: PublicationStatus, type: string) => status.conditions.find((one) => one.type === type);

describe('agent --once', () => {
  it('ends with the status and the Event of what it published', async () => {
    const cluster = await startCluster({ meshes: ['istio'], sandboxes, api: { tls: false } });
    try {
      cluster.api.put(customResourceDefinition(adapters, gateways));
      for (const mesh of cluster.meshes) cluster.api.put(cluster.meshCertificate(mesh));
      const { code, stderr } = await runOnce(cluster, []);
      assert.equal(code, 0, stderr);
      const status = await statusOf(cluster);
      for (const type of ['Ready', 'Published', 'Trusted']) {
        assert.equal(conditionOf(status, type)?.status, 'True', `${type}: ${conditionOf(status, type)?.message}`);
      }
      assert.ok(status.notAfter !== undefined && status.fingerprint !== undefined);
      const events = await list(cluster, '/api/v1/namespaces/emissary/events');
      assert.ok(events.some(({ reason }) => reason === 'Published'));
      const again = await runOnce(cluster, []);
      assert.equal(again.code, 0, again.stderr);
      assert.deepEqual(await statusOf(cluster), status);
    } finally {
      await cluster.stop();
    }
  });

  it('fails with the cause in the message and in the status', async () => {
    const cluster = await startCluster({ meshes: ['istio'], sandboxes, api: { tls: false } });
    try {
      cluster.api.put(customResourceDefinition(adapters, gateways));
      const [mesh] = cluster.meshes;
      assert.ok(mesh);
      const ca = { ...(mesh.config as { ca: object }).ca, address: '127.0.0.1:1' };
      cluster.api.put(cluster.meshCertificate(mesh, { istio: { ca } }));
      const { code, stderr } = await runOnce(cluster, ['--timeout', '15s']);
      assert.equal(code, 1);
      assert.match(stderr, /MeshCertificate emissary\/istio: ERR_MESH_UNREACHABLE: /);
      const status = await statusOf(cluster);
      assert.equal(conditionOf(status, 'Ready')?.status, 'False');
      assert.equal(status.lastError?.code, 'ERR_MESH_UNREACHABLE');
      assert.equal(conditionOf(status, 'Degraded')?.reason, 'MeshUnreachable');
    } finally {
      await cluster.stop();
    }
  });

  it('ends at once for a configuration file that can never be used', async () => {
    const cluster = await startCluster({ meshes: ['istio'], sandboxes, api: { tls: false } });
    const config = join(tmpdir(), `meshcert-once-${process.pid}.yaml`);
    try {
      await writeFile(
        config,
        'apiVersion: meshcert.dev/v1alpha1\nkind: MeshCertificate\nmetadata: {name: a}\nspec: {}\n',
      );
      // The test would run into its own limit if the process waited for this one.
      const { code, stderr } = await runOnce(cluster, ['--config', config, '--timeout', '10m']);
      assert.equal(code, 1);
      assert.match(stderr, /ERR_CONFIG: /);
    } finally {
      await rm(config, { force: true });
      await cluster.stop();
    }
  });
});
