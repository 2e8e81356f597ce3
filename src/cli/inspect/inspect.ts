import { adapters } from '../../../adapters/index.ts';
import { systemClock } from '../../async/clock.ts';
import { formatDuration } from '../../mesh/schema/duration.ts';
import { opensslPreflight } from '../../preflight/preflight.ts';
import type { InspectFlags } from '../commands/inspect.ts';
import { clusterOf, namespaceOf } from '../declare/cluster-flags.ts';
import type { Io } from '../declare/command.ts';
import { UsageError } from '../declare/usage-error.ts';
import { painter } from '../terminal/table.ts';
import { fromFiles, fromSecret, fromSocket, type Inspected } from './inspect-input.ts';
import { type Expected, formatReport, inspectReport } from './inspect-report.ts';

export async function runInspect(flags: InspectFlags, args: readonly string[], io: Io): Promise<number> {
  const now = flags.at ?? systemClock.now();
  const inspected = await look(args, flags, io);
  const judges = { preflight: opensslPreflight(), now, isRealTime: flags.at === undefined };
  const report = await inspectReport(inspected, expectedOf(flags, inspected), judges);
  if (flags.output === 'json') io.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  else io.stdout.write(formatReport(report, now, painter(io.stdout, io.env)));
  return report.ok ? 0 : 1;
}

async function look(args: readonly string[], flags: InspectFlags, io: Io): Promise<Inspected> {
  const [kind, name] = args;
  const files = flags.filename;
  if (kind === undefined && files.length === 0) throw new UsageError('name a file, "secret NAME" or "sds SOCKET"');
  if (kind === 'secret' && args.length === 2 && name !== undefined) {
    const kube = clusterOf(flags, io);
    try {
      return await fromSecret(kube, { namespace: namespaceOf(flags, io), name, caName: flags.caSecret }, io.signal);
    } finally {
      kube.close();
    }
  }
  if (kind === 'sds' && args.length === 2 && name !== undefined) return socket(name, flags, io);
  return fromFiles([...args, ...files], flags.ca, io);
}

async function socket(path: string, flags: InspectFlags, io: Io): Promise<Inspected> {
  const adapter = adapters.find(({ sds }) => sds);
  if (!adapter) throw new UsageError('no adapter of this agent reads an SDS socket');
  const late = new AbortController();
  const answered = new AbortController();
  const wait = systemClock.sleep(flags.timeout, answered.signal).then(
    () => late.abort(new Error(`${path} sent no identity within ${formatDuration(flags.timeout)}`)),
    () => {},
  );
  try {
    const sds = {
      socket: path,
      ...(flags.certificateName === undefined ? {} : { certificateName: flags.certificateName }),
      ...(flags.bundleName === undefined ? {} : { bundleName: flags.bundleName }),
    };
    return await fromSocket(adapter, sds, AbortSignal.any([io.signal, late.signal]));
  } catch (error) {
    throw late.signal.aborted ? late.signal.reason : error;
  } finally {
    answered.abort(new Error('answered'));
    await wait;
  }
}

function expectedOf({ form, id, trustDomain }: InspectFlags, { chain }: Inspected): Expected {
  const seen = (chain[0]?.names.uris.length ?? 0) > 0 ? 'spiffe' : 'dns';
  return { form: form ?? seen, isFormGiven: form !== undefined, id, trustDomain };
}
