import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startCluster } from './cluster.ts';
import { imageName } from './images.ts';
import { noCluster } from './node/machine.ts';
import { makeNamespaces, runsDirectory } from './node/namespaces.ts';

/** Every trace that the runs of one process could leave on this machine. */
function traces(pid: number): string[] {
  const mine = (name: string) => name.startsWith(`meshcert-cluster-${pid}-`);
  const cgroups = readdirSync('/sys/fs/cgroup').flatMap((hierarchy) => {
    const path = join('/sys/fs/cgroup', hierarchy);
    return existsSync(join(path, 'cgroup.procs')) ? readdirSync(path).map((name) => join(path, name)) : [path];
  });
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((name) => {
      try {
        return readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
      } catch {
        return '';
      }
    });
  return [
    ...cgroups.filter((path) => mine(path.split('/').at(-1) ?? '')),
    ...processes.filter((command) => command.includes(`meshcert-cluster-${pid}-`)),
    ...readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes(`meshcert-cluster-${pid}-`)),
    ...readdirSync(runsDirectory).filter(mine),
  ];
}

const POD = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'image', namespace: 'default' },
  spec: {
    restartPolicy: 'Never',
    containers: [
      {
        name: 'image',
        image: imageName('meshcert'),
        command: ['/usr/bin/node', '-e'],
        args: [
          `const { lookup } = require('node:dns/promises');
           lookup('kubernetes.default.svc').then(({ address }) => console.log(JSON.stringify({
             address,
             node: process.versions.node,
             user: require('node:os').userInfo().username,
             zone: new Date(0).toString(),
             authorities: require('node:tls').rootCertificates.length,
             files: ['/', '/usr', '/bin', '/usr/bin', '/sbin', '/usr/local/bin']
               .flatMap((path) => require('node:fs').existsSync(path) ? require('node:fs').readdirSync(path, { withFileTypes: true }) : [])
               .filter((entry) => entry.isFile()).map(({ name }) => name),
           })));`,
        ],
        env: [{ name: 'TZ', value: 'Asia/Tokyo' }],
        securityContext: {
          readOnlyRootFilesystem: true,
          allowPrivilegeEscalation: false,
          capabilities: { drop: ['ALL'] },
        },
      },
    ],
    securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
  },
};

test('a cluster starts, runs the image, and leaves nothing', { skip: noCluster() }, async (t) => {
  const start = performance.now();
  const seconds = () => ((performance.now() - start) / 1000).toFixed(1);
  {
    await using cluster = await startCluster({ images: ['meshcert'] });
    t.diagnostic(`cluster up in ${seconds()} s`);
    assert.match(await cluster.kubectl(['get', 'nodes']), /node1 +Ready .*v1\.34\.2/);

    await cluster.kubectl(['apply', '-f', '-'], { input: JSON.stringify(POD) });
    const terminated = 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}';
    await cluster.kubectl(['wait', `--for=${terminated}`, 'pod/image', '--timeout=60s']);
    const log = await cluster.kubectl(['logs', 'image']);
    assert.equal(await cluster.kubectl(['get', 'pod/image', `--output=${terminated}`]), '0', log);
    const said = JSON.parse(log);
    t.diagnostic(JSON.stringify(said));
    assert.equal(said.address, '10.96.0.1');
    assert.match(said.node, /^24\./);
    assert.equal(said.user, 'nonroot');
    assert.match(said.zone, /Thu Jan 01 1970 09:00:00 GMT\+0900/);
    assert.ok(said.authorities > 100, `${said.authorities} CA certificates`);
    assert.deepEqual(said.files.sort(), ['meshcert.js', 'node', 'package.json']);
  }
  t.diagnostic(`gone after ${seconds()} s`);
  assert.deepEqual(traces(process.pid), []);
});

test('the next run removes what a killed run left', { skip: noCluster() }, async () => {
  const script = fileURLToPath(new URL('killed.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface(child.stdout);
  const [pid] = (await once(lines, 'line')) as [string];
  assert.notDeepEqual(traces(Number(pid)), []);
  child.kill('SIGKILL');
  await once(child, 'exit');

  const next = await makeNamespaces();
  await next.remove();
  assert.deepEqual(traces(Number(pid)), []);
});
