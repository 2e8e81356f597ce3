import assert from 'node:assert/strict';
import { it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { MeshError } from '../mesh/error.ts';
import type { Log } from '../mesh/log.ts';
import { FailureStreak } from './reflector.ts';

function recorded(): { readonly log: Log; readonly lines: string[] } {
  const lines: string[] = [];
  const write = (level: string) => (fields: object, message: string) =>
    void lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
  const log: Log = {
    debug: () => {},
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: () => log,
  };
  return { log, lines };
}

it('logs consecutive failures when they begin, change, last, and end', async () => {
  const clock = new FakeClock();
  const { log, lines } = recorded();
  const streak = new FailureStreak(log, clock, { resource: 'secrets' });
  const refused = new MeshError('ERR_MESH_DENIED', 'may not be read');
  streak.over('well');
  for (let times = 0; times < 100; times++) streak.failed(refused, 'watching failed');
  streak.failed(new MeshError('ERR_MESH_UNREACHABLE', 'no answer'), 'watching failed');
  await clock.advance(600_000);
  streak.failed(new MeshError('ERR_MESH_UNREACHABLE', 'no answer'), 'watching failed');
  streak.over('well again');
  streak.over('well again');
  assert.deepEqual(lines, [
    'warn watching failed: may not be read {"resource":"secrets","code":"ERR_MESH_DENIED","times":1}',
    'warn watching failed: no answer {"resource":"secrets","code":"ERR_MESH_UNREACHABLE","times":101}',
    'warn watching failed: no answer {"resource":"secrets","code":"ERR_MESH_UNREACHABLE","times":102}',
    'info well again {"resource":"secrets","failures":102}',
  ]);
});

it('logs the error itself if it has no code: then it is a bug of ours', () => {
  const fields: object[] = [];
  const { log } = recorded();
  const streak = new FailureStreak({ ...log, warn: (entry) => void fields.push(entry) }, new FakeClock(), {});
  const error = new TypeError('x is not a function');
  streak.failed(error, 'watching failed');
  assert.deepEqual(fields, [{ err: error, times: 1 }]);
});
