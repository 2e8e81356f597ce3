import { UsageError } from './command.ts';

/** 9464 is what OpenTelemetry's Prometheus exporters use, so that scrape configurations often know it. */
const PORT = 9464;

/**
 * Where to listen, from `--listen`: `host:port`, `:port` for all addresses, or `off`. Without the flag only a pod
 * listens beyond the machine itself, since probes and scrapes come from outside of it.
 */
export function listenAddress(flag: string | undefined, inPod: boolean): { host: string; port: number } | undefined {
  if (flag === 'off') return undefined;
  if (flag === undefined) return { host: inPod ? '0.0.0.0' : '127.0.0.1', port: PORT };
  const match = /^(\[[^\]]+\]|[^:]*):(\d{1,5})$/.exec(flag);
  const port = Number(match?.[2]);
  if (!match || port > 65_535) throw new UsageError(`--listen ${flag}: expected host:port, :port or off`);
  const host = match[1]?.replace(/^\[|\]$/g, '');
  return { host: host === undefined || host === '' ? '0.0.0.0' : host, port };
}
