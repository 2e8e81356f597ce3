import assert from 'node:assert/strict';
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { AuditTail } from './audit-tail.ts';
import { slope } from './statistics.ts';
import { Tally, writesIn } from './tally.ts';

it('counts the requests of one client and leaves those of the others', () => {
  const tally = new Tally();
  for (const client of ['meshcert/1', 'meshcert/1', 'bare', 'meshcert/2']) tally.add(client, 'patch secrets');
  tally.add('meshcert/1', 'update leases');
  assert.deepEqual(tally.look('meshcert/'), { 'patch secrets': 3, 'update leases': 1 });
  assert.deepEqual(tally.take('never'), {});
  assert.equal(writesIn(tally.take('meshcert/')), 3);
  assert.deepEqual(tally.look('meshcert/'), {});
  assert.deepEqual(tally.look('bare'), { 'patch secrets': 1 });
});

it('continues in an audit log, counts a watch once, and ignores a line until it is complete', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'meshcert-audit-'));
  try {
    const path = join(dir, 'audit.log');
    const event = (auditID: string, stage: string, verb: string, uri: string) => {
      const resource = uri.split('/')[0];
      return `${JSON.stringify({ auditID, stage, verb, requestURI: `/${uri}`, userAgent: 'bare', objectRef: { resource } })}\n`;
    };
    const status = event('c', 'ResponseComplete', 'patch', 'meshcertificates/status?force=true');
    await writeFile(path, event('a', 'ResponseStarted', 'watch', 'secrets') + status.slice(0, 40));
    const tally = new Tally();
    const tail = new AuditTail(path, tally);
    await tail.read();
    assert.deepEqual(tally.take('bare'), { 'watch secrets': 1 });
    await appendFile(path, status.slice(40) + event('a', 'ResponseComplete', 'watch', 'secrets'));
    await tail.read();
    assert.deepEqual(tally.take('bare'), { 'patch meshcertificates/status': 1 });
  } finally {
    await rm(dir, { recursive: true });
  }
});

it('fits the least-squares line', () => {
  assert.equal(slope([0, 1, 2], [5, 7, 9]), 2);
  assert.equal(slope([0, 1, 2], [1, 4, 1]), 0);
});
