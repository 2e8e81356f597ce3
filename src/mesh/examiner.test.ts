import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../async/clock.ts';
import { MeshError } from './error.ts';
import { type ExaminedCheck, Examiner } from './examiner.ts';

async function stateOf(error: Error, here: boolean): Promise<ExaminedCheck | undefined> {
  let result: ExaminedCheck | undefined;
  const tell = (check: ExaminedCheck) => {
    result = check;
  };
  const { signal } = new AbortController();
  const examiner = new Examiner({ clock: systemClock, limitMs: 60_000, issue: true, here, signal, tell });
  await examiner.look(
    'mesh-connection',
    () => Promise.reject(error),
    () => '',
  );
  return result;
}

test('a name that does not resolve is a failure in the cluster, and not known outside of it', async () => {
  const unresolved = new MeshError(
    'ERR_MESH_UNREACHABLE',
    'CA istiod.istio-system.svc:15012: the name does not resolve',
  );
  assert.equal((await stateOf(unresolved, true))?.state, 'failed');
  const outside = await stateOf(unresolved, false);
  assert.equal(outside?.state, 'skipped');
  assert.match(outside?.message ?? '', /run meshcert doctor in a pod/);
  const refused = new MeshError('ERR_MESH_UNREACHABLE', 'CA istiod.istio-system.svc:15012: connect ECONNREFUSED');
  assert.equal((await stateOf(refused, false))?.state, 'failed');
});
