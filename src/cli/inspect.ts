import { parseArgs } from 'node:util';
import { adapters } from '../../adapters/index.ts';
import type { Wish } from '../core/verify.ts';
import { systemClock } from '../mesh/clock.ts';
import { parseDuration } from '../mesh/duration.ts';
import { CLUSTER_OPTIONS, CLUSTER_USAGE, clusterOf, namespaceOf } from './cluster-flags.ts';
import { type Command, type Io, UsageError } from './command.ts';
import { fromFiles, fromSecret, fromSocket, type Inspected } from './inspect-input.ts';
import { formatReport, inspectReport } from './inspect-report.ts';
import { painter } from './table.ts';

const USAGE = `usage: meshcert inspect FILE… [--ca FILE…] [flags]
       meshcert inspect secret NAME [--ca-secret NAME] [flags]
       meshcert inspect sds SOCKET [flags]

Explains certificates: what they are, and what each check says that a pair must
pass before it is published. Exits with 1 when one fails.

  --ca FILE              roots to verify under (default: those in the files)
  --ca-secret NAME       the Secret with the roots (default: its own ca.crt)
  --id ID                the SPIFFE ID or DNS name that the leaf must carry
  --trust-domain NAME    the trust domain that it must be in
  --form spiffe|dns      how the mesh names workloads (default: by the leaf)
  --at TIME              judge as if it were then (RFC 3339)
  --certificate-name N   asked of the socket (default: default)
  --bundle-name N        asked of the socket (default: ROOTCA)
  --timeout DURATION     for the socket's first answer (default 10s)
  -o, --output FORMAT    json, instead of text
${CLUSTER_USAGE}
`;

const OPTIONS = {
  ...CLUSTER_OPTIONS,
  ca: { type: 'string', multiple: true, default: [] as string[] },
  'ca-secret': { type: 'string' },
  id: { type: 'string' },
  'trust-domain': { type: 'string' },
  form: { type: 'string' },
  at: { type: 'string' },
  'certificate-name': { type: 'string' },
  'bundle-name': { type: 'string' },
  timeout: { type: 'string', default: '10s' },
  output: { type: 'string', short: 'o' },
} as const;

const parse = (argv: readonly string[]) => parseArgs({ args: [...argv], options: OPTIONS, allowPositionals: true });
type Flags = ReturnType<typeof parse>['values'];

export const inspect: Command = {
  name: 'inspect',
  summary: 'Explain a PEM file, a Secret or a live SDS socket',
  usage: USAGE,
  async run(argv, io) {
    const { values, positionals } = parse(argv);
    if (values.output !== undefined && values.output !== 'json') throw new UsageError('-o must be json');
    const now = values.at === undefined ? systemClock.now() : Date.parse(values.at);
    if (Number.isNaN(now)) throw new UsageError(`--at ${values.at}: expected a time such as 2026-01-31T12:00:00Z`);
    const inspected = await look(positionals, values, io);
    const report = inspectReport(inspected, wishOf(values, inspected), now);
    if (values.output === 'json') io.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    else io.stdout.write(formatReport(report, now, painter(io.stdout, io.env)));
    return report.ok ? 0 : 1;
  },
};

async function look(positionals: readonly string[], flags: Flags, io: Io): Promise<Inspected> {
  const [kind, name] = positionals;
  if (kind === undefined) throw new UsageError('name a file, "secret NAME" or "sds SOCKET"');
  if (kind === 'secret' && positionals.length === 2 && name !== undefined) {
    const kube = clusterOf(flags, io);
    try {
      return await fromSecret(kube, { namespace: namespaceOf(flags, io), name, caName: flags['ca-secret'] }, io.signal);
    } finally {
      kube.close();
    }
  }
  if (kind === 'sds' && positionals.length === 2 && name !== undefined) return socket(name, flags, io);
  return fromFiles(positionals, flags.ca);
}

async function socket(path: string, flags: Flags, io: Io): Promise<Inspected> {
  const istio = adapters.find(({ mesh }) => mesh === 'istio');
  if (!istio) throw new TypeError('the istio adapter is built in');
  const late = new AbortController();
  const answered = new AbortController();
  const timeout = parseDuration(flags.timeout);
  const wait = systemClock.sleep(timeout, answered.signal).then(
    () => late.abort(new Error(`${path} sent no identity within ${flags.timeout}`)),
    () => {},
  );
  try {
    const sds = {
      socket: path,
      ...(flags['certificate-name'] === undefined ? {} : { certificateName: flags['certificate-name'] }),
      ...(flags['bundle-name'] === undefined ? {} : { bundleName: flags['bundle-name'] }),
    };
    return await fromSocket(istio, sds, AbortSignal.any([io.signal, late.signal]));
  } catch (error) {
    throw late.signal.aborted ? late.signal.reason : error;
  } finally {
    answered.abort(new Error('answered'));
    await wait;
  }
}

function wishOf(flags: Flags, { chain }: Inspected): Wish {
  const { form } = flags;
  if (form !== undefined && form !== 'spiffe' && form !== 'dns') throw new UsageError('--form must be spiffe or dns');
  const seen = (chain[0]?.names.uris.length ?? 0) > 0 ? 'spiffe' : 'dns';
  return { form: form ?? seen, id: flags.id, trustDomain: flags['trust-domain'] };
}
