import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { TraceSink } from '../../src/agent/trace-sink.ts';
import { systemClock } from '../../src/async/clock.ts';
import { type Log, silentLog } from '../../src/mesh/log.ts';

import { startTracing } from '../../src/telemetry/otlp.ts';
import { AgentWorld } from '../support/agent-world.ts';

interface Span {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { readonly key: string; readonly value: { readonly stringValue?: string } }[];
}

interface Exported {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: Span['attributes'] };
    readonly scopeSpans: readonly { readonly spans: readonly Span[] }[];
  }[];
}

/** An OTLP/HTTP receiver: keeps the bodies of POST /v1/traces. */
async function receiver() {
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (part) => (text += part));
    request.on('end', () => {
      if (request.method === 'POST' && request.url === '/v1/traces') bodies.push(text);
      response.writeHead(200, { 'Content-Type': 'application/json' }).end('{}');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: new URL(`http://127.0.0.1:${port}`),
    bodies,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}

const attribute = ({ attributes }: Pick<Span, 'attributes'>, name: string) =>
  attributes.find(({ key }) => key === name)?.value.stringValue;

test('a publication is one trace: a span for each write below one span', async () => {
  await using collector = await receiver();
  await using world = await AgentWorld.start();
  const tracing = startTracing({
    ...{ endpoint: collector.endpoint, version: '1.2.3', instance: 'pod-a', clock: systemClock, log: silentLog },
  });
  world.run({}, [new TraceSink(tracing.tracer, world.clock)]);
  await world.untilReady();
  await tracing.stop();

  const exported = collector.bodies.flatMap((body) => (JSON.parse(body) as Exported).resourceSpans);
  assert.equal(attribute(exported[0]?.resource ?? { attributes: [] }, 'service.name'), 'meshcert');
  const spans = exported.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans));
  const root = spans.find(({ name }) => name === 'publish');
  assert.ok(root && !root.parentSpanId);
  assert.equal(attribute(root, 'meshcert.name'), 'istio');
  assert.equal(attribute(root, 'meshcert.fingerprint'), world.status?.fingerprint);
  const writes = spans.filter(({ parentSpanId }) => parentSpanId === root.spanId);
  assert.deepEqual(
    writes.map((span) => `${span.name} ${attribute(span, 'meshcert.object.name')}`),
    ['create Secret istio-ca', 'create Secret istio-identity', 'create TLSContext istio'],
  );
  for (const { traceId, startTimeUnixNano, endTimeUnixNano } of writes) {
    assert.equal(traceId, root.traceId);
    assert.ok(BigInt(startTimeUnixNano) >= BigInt(root.startTimeUnixNano));
    assert.ok(BigInt(endTimeUnixNano) <= BigInt(root.endTimeUnixNano));
  }
  assert.doesNotMatch(collector.bodies.join(), /PRIVATE KEY|BEGIN CERTIFICATE/);
});

test('a receiver that refuses is logged with a code, and nothing of its answer is quoted', async () => {
  await using collector = await receiver();
  const { endpoint } = collector;
  await collector[Symbol.asyncDispose]();
  const lines: string[] = [];
  const write = (fields: object, message: string) => lines.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const tracing = startTracing({ endpoint, version: '1', instance: 'a', clock: systemClock, log });
  tracing.tracer.startSpan('one').end();
  await tracing.stop();
  assert.equal(lines.length, 1);
  assert.match(
    lines[0] ?? '',
    /^traces cannot be exported to 127\.0\.0\.1:\d+; check --otlp-endpoint.*ERR_TRACE_EXPORT/,
  );
});
