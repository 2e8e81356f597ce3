import { DiagLogLevel, diag, type Tracer } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base';
import type { Clock } from '../async/clock.ts';
import type { Log } from '../mesh/log.ts';

export interface TracingOptions {
  /** Base URL of an OTLP/HTTP receiver, such as `http://otel-collector.monitoring:4318`. */
  readonly endpoint: URL;
  readonly version: string;
  /** Name of the process, such as the pod's. */
  readonly instance: string;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Tracing {
  readonly tracer: Tracer;
  /** Exports the remaining spans; never throws. */
  stop(): Promise<void>;
}

/** A receiver that is down fails every batch, several times a minute. */
const WARN_EVERY_MS = 300_000;

/**
 * Exports spans by OTLP over HTTP. Import this module only when tracing is on: its packages cost memory. A failed export
 * is logged with ERR_TRACE_EXPORT, at most every five minutes, and has no other effect.
 */
export function startTracing({ endpoint, version, instance, clock, log }: TracingOptions): Tracing {
  const url = new URL('v1/traces', endpoint.href.endsWith('/') ? endpoint : `${endpoint.href}/`);
  let warnedAt = Number.NEGATIVE_INFINITY;
  const failed = () => {
    if (clock.monotonic() - warnedAt < WARN_EVERY_MS) return;
    warnedAt = clock.monotonic();
    const message = `traces cannot be exported to ${url.host}; check --otlp-endpoint and the receiver`;
    log.warn({ code: 'ERR_TRACE_EXPORT' }, message);
  };
  const ignore = () => {};
  diag.setLogger(
    { error: failed, warn: ignore, info: ignore, debug: ignore, verbose: ignore },
    { logLevel: DiagLogLevel.ERROR, suppressOverrideMessage: true },
  );
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'meshcert',
      'service.version': version,
      'service.instance.id': instance,
    }),
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: url.href }))],
  });
  return {
    tracer: provider.getTracer('meshcert', version),
    stop: () => provider.shutdown().catch(failed),
  };
}
