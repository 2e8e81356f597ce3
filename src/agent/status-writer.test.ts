import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Kube } from '../kube/api.ts';
import { silentLog } from '../mesh/log.ts';
import type { KubeObject } from '../objects/objects.ts';
import { type Report, type ReportedStatus, reportedStatusOf } from './reporter.ts';

import { StatusWriter } from './status-writer.ts';
import { WritePriority } from './write-order.ts';

/** An API server that stores one status for each name, and may respond late. */
function rig() {
  const applied: string[] = [];
  const byName = new Map<string, MeshCertificate>();
  const entries = new Map<string, ReportedStatus>();
  let version = 0;
  let open = Promise.resolve();
  const kube = {
    async apply(object: KubeObject) {
      await open;
      const { name } = object.metadata;
      applied.push(name);
      return store(name, object.status as PublicationStatus);
    },
  } as unknown as Kube;
  const store = (name: string, status: PublicationStatus | undefined): MeshCertificate => {
    version += 1;
    const metadata = { name, namespace: 'emissary', resourceVersion: `${version}` };
    const stored = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata, status };
    byName.set(name, stored as unknown as MeshCertificate);
    return stored as unknown as MeshCertificate;
  };
  const stop = new AbortController();
  let leading = true;
  const clock = new FakeClock();
  const writer = new StatusWriter({
    kube,
    clock,
    random: () => 0.5,
    log: silentLog,
    writePriority: new WritePriority(clock),
    leads: () => leading,
    signal: stop.signal,
  });
  return {
    applied,
    byName,
    store,
    lead: (now: boolean) => {
      leading = now;
    },
    /** Resolves to a function that lets requests through again. */
    hold() {
      let answer = () => {};
      open = new Promise<void>((resolve) => {
        answer = resolve;
      });
      return answer;
    },
    clock,
    writer,
    say(name: string, rotations: number, conditions: readonly object[] = []) {
      const certificate = byName.get(name) ?? store(name, undefined);
      const status = { mesh: 'istio', rotations, conditions } as unknown as PublicationStatus;
      const one = entries.get(name) ?? reportedStatusOf(certificate, status);
      entries.set(name, one);
      writer.status(status, undefined, { certificate, leading } as Report, one);
    },
  };
}

describe('statuses', () => {
  it('are written once for each change', async () => {
    const { applied, say } = rig();
    for (const rotations of [1, 1, 2, 2]) {
      say('mesh', rotations);
      await settle();
    }
    assert.deepEqual(applied, ['mesh', 'mesh']);
  });

  const waits = [{ type: 'Published', status: 'False', reason: 'NotIssued' }];

  it('that only say that a first certificate is awaited are not written when it comes soon', async () => {
    const { applied, clock, say } = rig();
    say('mesh', 0, waits);
    await clock.advance(29_000);
    assert.deepEqual(applied, []);
    say('mesh', 0, [{ type: 'Published', status: 'True', reason: 'InForce' }]);
    await settle();
    await clock.advance(60_000);
    assert.deepEqual(applied, ['mesh']);
  });

  it('that only say that a first certificate is awaited are written after thirty seconds', async () => {
    const { applied, clock, say } = rig();
    say('mesh', 0, waits);
    await clock.advance(30_000);
    assert.deepEqual(applied, ['mesh']);
  });

  it('that wait for a first certificate are written when the process ends', async () => {
    const { applied, writer, say } = rig();
    say('mesh', 0, waits);
    await writer.flush();
    assert.deepEqual(applied, ['mesh']);
  });

  it('are written once, however often the same status is reported during the write', async () => {
    const { applied, say, hold } = rig();
    const answer = hold();
    for (const rotations of [1, 1, 1]) {
      say('mesh', rotations);
      await settle();
    }
    answer();
    await settle();
    assert.deepEqual(applied, ['mesh']);
  });

  it('that waited are not written once another replica leads', async () => {
    const { applied, say, hold, lead } = rig();
    const answer = hold();
    const names = Array.from({ length: 50 }, (_, n) => `mesh-${n}`);
    for (const name of names) say(name, 1);
    await settle();
    lead(false);
    answer();
    await settle();
    assert.ok(applied.length < 20, `${applied.length} were under way`);
  });

  it('are written again when another replica wrote a different one in between', async () => {
    const { applied, say, store } = rig();
    say('mesh', 1);
    await settle();
    store('mesh', { mesh: 'istio', rotations: 9, conditions: [] } as unknown as PublicationStatus);
    say('mesh', 1);
    await settle();
    assert.deepEqual(applied, ['mesh', 'mesh']);
    say('mesh', 1);
    await settle();
    assert.equal(applied.length, 2);
  });
});
