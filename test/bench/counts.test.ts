import assert from 'node:assert/strict';
import { setMaxListeners } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { parse } from 'yaml';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { ROOT } from '../../scripts/tree.ts';
import { Agent } from '../../src/agent/agent.ts';
import { alone } from '../../src/agent/election.ts';
import type { Sink } from '../../src/agent/reporter.ts';
import { EventSink, StatusBoard } from '../../src/agent/sinks.ts';
import { customResources } from '../../src/agent/source.ts';
import { StatusWriter } from '../../src/agent/status-writer.ts';
import { WritePriority } from '../../src/agent/write-order.ts';
import { ALLOW_ANY, ANY } from '../../src/config/allow.ts';
import { gateways } from '../../src/gateways.ts';
import { connect } from '../../src/kube/client.ts';
import { recorder } from '../../src/kube/events.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { drive } from '../support/drive.ts';
import { FakeClock, settle } from '../support/fake-clock.ts';
import { anyPair } from '../support/preflight.ts';
import { ToyMesh } from '../support/toy-mesh.ts';

/** More than the limit on Events at once. */
const FLEET = 60;
/** So small that no request reaches its deadline while a busy machine answers. */
const STEP_MS = 5;
const NAMESPACE = 'fleet';
const USER_AGENT = 'meshcert';

it('a fleet costs four requests a first issue, two a rotation, and a bounded number of Events, and none at a restart or when idle', async () => {
  const clock = new FakeClock();
  const definition = parse(await readFile(join(ROOT, 'deploy/crd/meshcertificate.yaml'), 'utf8')) as KubeObject;
  const api = await startKubeApi({ clock, tls: false, namespaces: [NAMESPACE], objects: [definition] });
  const mesh = new ToyMesh(SandboxCa.root({ clock }));
  const asked = () => api.requests.entries.filter(({ userAgent }) => userAgent === USER_AGENT);
  const writes = () =>
    asked()
      .filter(({ verb }) => !['get', 'list', 'watch'].includes(verb))
      .map(({ verb, resource }) => `${verb} ${resource}`);
  const tally = (lines: readonly string[]) =>
    Object.fromEntries([...new Set(lines)].sort().map((line) => [line, lines.filter((one) => one === line).length]));

  let rotated = 0;
  const run = () => {
    const stop = new AbortController();
    const { signal } = stop;
    setMaxListeners(0, signal);
    const board = new StatusBoard();
    const random = () => 0.5;
    const log = silent();
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: USER_AGENT, clock });
    const counting: Sink = {
      status: (_status, _before, report) => {
        if (report.rotation?.kind === 'leaf') rotated += 1;
      },
    };
    const { adapter } = mesh;
    const onError = () => {};
    const writePriority = new WritePriority(clock);
    const events = recorder(kube, { component: 'meshcert', instance: 'one', clock, log, signal });
    const watching = {
      kube,
      adapters: [adapter],
      gateways,
      clock,
      random,
      log,
      allow: ALLOW_ANY,
      namespaces: [NAMESPACE],
      leadership: alone,
      onError,
    };
    const agent = new Agent({
      kube,
      gateways,
      adapters: [adapter],
      certificates: (either) => customResources(watching, either),
      leadership: alone,
      preflight: anyPair,
      writePriority,
      sinks: [
        board,
        new StatusWriter({ kube, clock, random, log, signal, writePriority, leads: () => true }),
        new EventSink(events),
        counting,
      ],
      clock,
      random,
      log,
      observe: { by: 'labels', namespaces: [NAMESPACE] },
      dryRun: false,
      filesBelow: ANY,
      allow: ALLOW_ANY,
    });
    const ended = agent.run(signal).finally(() => kube.close());
    const published = () =>
      board
        .all()
        .filter(({ status }) => status.conditions.some((one) => one.type === 'Published' && one.status === 'True'));
    return {
      agent,
      board,
      ready: () => drive(clock, () => published().length === FLEET, { what: 'all published', stepMs: STEP_MS }),
      stop: async () => {
        stop.abort(new Error('over'));
        await ended;
      },
    };
  };
  const reader = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
  /** The last report of each reconciler is stored: no write is in progress or pending. */
  const untilStored = (board: StatusBoard) =>
    drive(
      clock,
      async () => {
        const { items } = await reader.list(RESOURCES.meshCertificates, { namespace: NAMESPACE });
        const stored = new Map(items.map(({ metadata, status }) => [metadata.name, status]));
        return board
          .all()
          .every(({ name, status }) => isDeepStrictEqual(stored.get(name), JSON.parse(JSON.stringify(status))));
      },
      { what: 'statuses as they were reported', stepMs: STEP_MS },
    );
  const quiet = async () => {
    for (let step = 0; step < 500; step++) {
      await clock.advance(10);
      await settle();
    }
  };

  try {
    for (let at = 0; at < FLEET; at++) {
      const metadata = { name: `gw-${at}`, namespace: NAMESPACE, generation: 1 };
      api.put({
        apiVersion: 'meshcert.dev/v1alpha1',
        kind: 'MeshCertificate',
        metadata,
        spec: { istio: { ca: { serviceAccount: 'gateway' } } },
      });
    }
    const first = run();
    await first.ready();
    await untilStored(first.board);
    const { 'create events': _, ...created } = tally(writes());
    assert.deepEqual(created, {
      'create secrets': 2 * FLEET,
      'create tlscontexts': FLEET,
      'patch meshcertificates/status': FLEET,
    });
    await first.stop();
    // Everything in flight has arrived.
    await quiet();

    api.requests.reset();
    const issued = mesh.issued;
    const second = run();
    await second.ready();
    await untilStored(second.board);
    await quiet();
    assert.deepEqual(tally(writes()), {}, 'a restart writes nothing');
    assert.equal(mesh.issued, issued, 'a restart issues nothing');

    api.requests.reset();
    for (let step = 0; step < 20; step++) await clock.advance(1_000);
    assert.deepEqual(asked(), [], 'nothing is due and nothing is asked');

    for (let at = 0; at < FLEET; at++) second.agent.reconcilers.find(NAMESPACE, `gw-${at}`)?.renew();
    await drive(clock, () => rotated === FLEET, { what: 'all rotated', stepMs: STEP_MS });
    await untilStored(second.board);
    await quiet();
    const { 'create events': events = 0, ...rest } = tally(writes());
    assert.deepEqual(rest, { 'patch meshcertificates/status': FLEET, 'patch secrets': FLEET });
    assert.equal(mesh.issued - issued, FLEET, 'each was issued once');
    assert.ok(events < FLEET, `${events} Events`);
    await second.stop();
  } finally {
    reader.close();
    await api.stop();
  }
});

const silent = () => {
  const nothing = () => {};
  const log = { debug: nothing, info: nothing, warn: nothing, error: nothing, child: () => log };
  return log;
};
