import { parseArgs } from 'node:util';
import { adapters } from '../../adapters/index.ts';
import { formatPath } from '../config/issue.ts';
import { validator } from '../config/validate.ts';
import type { KubeObject } from '../core/object.ts';
import { CHECKS, diagnose } from '../doctor/diagnose.ts';
import { type Origin, readFiles } from '../doctor/files.ts';
import { SEVERITIES } from '../doctor/finding.ts';
import { readCluster } from '../doctor/live.ts';
import { FORMATS, report } from '../doctor/report.ts';
import type { EmissaryEnv } from '../gateway/env.ts';
import { systemClock } from '../mesh/clock.ts';
import { CLUSTER_OPTIONS, CLUSTER_USAGE, type ClusterFlags, clusterOf } from './cluster-flags.ts';
import { type Command, type Io, UsageError } from './command.ts';
import { VERSION } from './version.ts';

const USAGE = `usage: meshcert doctor [-f PATH]... [flags]

Finds what hurts or will: contexts that fall back to plaintext, pairs that
freeze the gateway, rotations that do not arrive. Reads a cluster, or files
before they are applied. Changes nothing. docs/checks.md explains each code.

  -f, --filename PATH    judge these files, or all manifests below a directory,
                         instead of a cluster; may be given more than once
  -o, --output FORMAT    text, json or sarif (default text)
  --fail-on SEVERITY     exit with 1 from here on: error, warning, note
                         (default error); a file that is no YAML fails too
  --ambassador-id ID     of the gateway, where its Deployment does not tell
  --gateway-namespace N  of the gateway, where its Deployment does not tell
  --list                 print the checks there are
${CLUSTER_USAGE}
                         and for -n: judge this namespace alone
`;

export const doctor: Command = {
  name: 'doctor',
  summary: 'Find what will hurt, in a cluster or in files to be applied',
  usage: USAGE,
  run,
};

interface Read {
  readonly objects: readonly KubeObject[];
  readonly origins: ReadonlyMap<KubeObject, Origin>;
  readonly whole: ReadonlySet<string>;
  readonly skipped: readonly string[];
}

async function run(argv: readonly string[], io: Io): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      ...CLUSTER_OPTIONS,
      filename: { type: 'string', short: 'f', multiple: true },
      output: { type: 'string', short: 'o', default: 'text' },
      'fail-on': { type: 'string', default: 'error' },
      'ambassador-id': { type: 'string' },
      'gateway-namespace': { type: 'string' },
      list: { type: 'boolean', default: false },
    },
  });
  const format = oneOf('--output', FORMATS, values.output);
  const failOn = oneOf('--fail-on', SEVERITIES, values['fail-on']);
  if (values.list) {
    for (const { code, severity, title } of CHECKS) io.stdout.write(`${code}  ${severity.padEnd(7)}  ${title}\n`);
    return 0;
  }
  const { objects, origins, whole, skipped } = values.filename
    ? await fromFiles(values.filename)
    : await fromCluster(values, io);
  const findings = diagnose({ objects, whole, now: systemClock.now(), validate: validation() }, envOf(values));
  io.stdout.write(
    report(format, { findings, checks: CHECKS, origins, judged: objects.length, skipped, version: VERSION }),
  );
  const worst = Math.max(-1, ...findings.map(({ severity }) => SEVERITIES.indexOf(severity)));
  // A file that could not be read is no clean bill.
  return worst >= SEVERITIES.indexOf(failOn) || (values.filename && skipped.length > 0) ? 1 : 0;
}

async function fromFiles(paths: readonly string[]): Promise<Read> {
  const { objects, origins, skipped } = await readFiles(paths).catch((cause: NodeJS.ErrnoException) => {
    if (cause.syscall === undefined) throw cause;
    throw new UsageError(`cannot read ${cause.path ?? paths.join(', ')}: ${cause.code}`);
  });
  const sentences = skipped.map(({ file, line, message }) => `${file}:${line}: ${message}`);
  return { objects, origins, whole: new Set(), skipped: sentences };
}

async function fromCluster(flags: ClusterFlags, io: Io): Promise<Read> {
  const kube = clusterOf(flags, io);
  try {
    const namespaces = flags.namespace === undefined ? undefined : [flags.namespace];
    return { ...(await readCluster(kube, namespaces, io.signal)), origins: new Map() };
  } finally {
    kube.close();
  }
}

function validation(): (object: KubeObject) => readonly string[] {
  const validate = validator(adapters);
  return (object) => {
    const result = validate(object);
    return result.ok ? [] : result.issues.map(({ path, message }) => `${formatPath(path)}: ${message}`);
  };
}

function envOf(values: { 'ambassador-id'?: string; 'gateway-namespace'?: string }): Partial<EmissaryEnv> {
  return {
    ...(values['ambassador-id'] === undefined ? {} : { ambassadorId: values['ambassador-id'] }),
    ...(values['gateway-namespace'] === undefined ? {} : { namespace: values['gateway-namespace'] }),
  };
}

function oneOf<T extends string>(flag: string, known: readonly T[], given: string): T {
  const found = known.find((one) => one === given);
  if (!found) throw new UsageError(`${flag} must be one of ${known.join(', ')}`);
  return found;
}
