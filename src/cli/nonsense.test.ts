import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { say } from '../../test/support/io.ts';
import { COMMANDS } from './commands.ts';
import type { Flag } from './flags.ts';

const NONSENSE = ['nonsense', '', '-1', '99999999999', 'h:99999', 'http://[', '/dev/zero', '/nonexistent/x', 'ü\u0000'];

/** Arguments with which a command starts its work, as far as it gets without a cluster. */
const ENOUGH: Readonly<Record<string, readonly string[]>> = {
  agent: ['--listen=off', '--log-level=silent', '--once', '--timeout=1s'],
  inspect: ['/dev/null'],
  renew: ['istio'],
  probe: ['istio'],
  completion: ['bash'],
};
/** These would run until they are interrupted, so they start interrupted. */
const ENDLESS = ['agent', 'demo'];

/** Text that only a developer of Node.js understands. */
const RAW =
  /unexpected error|\b(Type|Range|Syntax|Reference)Error\b|ERR_(SOCKET|INVALID|OUT_OF|UNESCAPED|FS_|TLS_|HTTP_|ASSERT)|\n\s+at /;

describe('whatever value a flag has', () => {
  let dir = '';
  let KUBECONFIG = '';
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'meshcert-nonsense-'));
    KUBECONFIG = join(dir, 'kubeconfig');
    const cluster = 'clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}]';
    const context = 'contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]';
    await writeFile(KUBECONFIG, `apiVersion: v1\nkind: Config\n${cluster}\n${context}\ncurrent-context: a\n`);
  });
  after(() => rm(dir, { recursive: true }));

  for (const listed of COMMANDS) {
    it(`meshcert ${listed.name} answers with a message of its own`, async () => {
      const command = await listed.load();
      const flags = Object.values<Flag<unknown>>(command.flags).filter(({ required }) => required);
      const stopped = AbortSignal.abort(new Error('SIGINT'));
      for (const flag of flags) {
        for (const value of NONSENSE) {
          const argv = [command.name, ...(ENOUGH[command.name] ?? []), `${flag.long}=${value}`];
          const signal = ENDLESS.includes(command.name) ? { signal: stopped } : {};
          const { code, stdout, stderr } = await say(argv, { env: { KUBECONFIG }, stdin: '', ...signal });
          const said = `${argv.join(' ')}\n${stdout}${stderr}`;
          assert.ok([0, 1, 2, 130].includes(code), said);
          assert.doesNotMatch(stdout + stderr, RAW, argv.join(' '));
          // Findings of doctor are its output.
          if (code === 2 || (code === 1 && stdout === ''))
            assert.match(stderr, new RegExp(`^meshcert ${command.name}: `), said);
        }
      }
    });
  }
});
