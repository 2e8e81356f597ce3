import { systemClock } from '../../async/clock.ts';
import { formatPath } from '../../config/issue.ts';
import { validator } from '../../config/validate.ts';
import type { KubeObject } from '../../core/object.ts';
import { areasOf, checksOf, diagnose, worstFirst } from '../../doctor/diagnose.ts';
import { findingsOf, NOTHING } from '../../doctor/examine.ts';
import { type Origin, parseManifest, readFiles } from '../../doctor/files.ts';
import { LOOKS, type Seen } from '../../doctor/looks/look.ts';
import { report } from '../../doctor/report.ts';
import type { ClusterSnapshot, GatewaySettings } from '../../gateway/diagnosis.ts';
import { gateways } from '../../gateways.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { SEVERITIES } from '../../mesh/object-check.ts';
import type { DoctorFlags } from '../commands/doctor.ts';
import type { Io } from '../declare/command.ts';
import { UsageError } from '../declare/usage-error.ts';
import { VERSION } from '../declare/version.ts';
import { systemReason } from '../terminal/failure.ts';
import { readInput } from '../terminal/input.ts';
import { adaptersWith } from './adapter-files.ts';
import { examineCluster } from './examine-cluster.ts';

interface Read {
  readonly objects: readonly KubeObject[];
  readonly origins: ReadonlyMap<KubeObject, Origin>;
  readonly whole: ReadonlySet<string>;
  readonly namespaces?: readonly string[] | undefined;
  readonly skipped: readonly string[];
  readonly seen: readonly Seen[];
}

export async function runDoctor(flags: DoctorFlags, io: Io): Promise<number> {
  const adapters = await adaptersWith(flags.adapter);
  if (flags.list) {
    for (const { code, severity, title } of [...checksOf(adapters), ...LOOKS])
      io.stdout.write(`${code}  ${severity.padEnd(7)}  ${title}\n`);
    return 0;
  }
  const isFiles = flags.filename.length > 0;
  const { objects, origins, whole, namespaces, skipped, seen } = isFiles
    ? await fromFiles(flags.filename, io)
    : await fromCluster(flags, adapters, io);
  const inObjects = diagnose(
    { objects, whole, namespaces, adapters, now: systemClock.now(), ...validation(adapters) },
    settingsOf(flags),
  );
  const findings = worstFirst([...inObjects, ...findingsOf(seen)]);
  io.stdout.write(
    report(flags.output, {
      findings,
      checks: checksOf(adapters),
      areas: areasOf(adapters),
      seen,
      origins,
      judged: objects.length,
      skipped,
      version: VERSION,
    }),
  );
  const worst = Math.max(-1, ...findings.map(({ severity }) => SEVERITIES.indexOf(severity)));
  // A file that could not be read is not a clean result.
  return worst >= SEVERITIES.indexOf(flags.failOn) || (isFiles && skipped.length > 0) ? 1 : 0;
}

async function fromFiles(paths: readonly string[], io: Io): Promise<Read> {
  const { objects, origins, skipped } = await readFiles(
    paths.filter((path) => path !== '-'),
    (file) => readInput(file, io),
  ).catch((cause) => {
    if (cause.syscall === undefined && !(cause instanceof TypeError)) throw cause;
    throw new UsageError(`cannot read ${cause.path ?? paths.join(', ')}: ${systemReason(cause)}`);
  });
  const piped = paths.includes('-') ? parseManifest(await readInput('-', io), 'standard input') : undefined;
  const sentences = [...skipped, ...(piped?.skipped ?? [])].map(
    ({ file, line, message }) => `${file}:${line}: ${message}`,
  );
  return {
    objects: [...objects, ...(piped?.found.map(({ object }) => object) ?? [])],
    origins: new Map([...origins, ...(piped?.found.map(({ object, origin }) => [object, origin] as const) ?? [])]),
    whole: new Set(),
    skipped: sentences,
    seen: [],
  };
}

async function fromCluster(flags: DoctorFlags, adapters: readonly Adapter[], io: Io): Promise<Read> {
  const { live, seen } = await examineCluster(flags, adapters, io);
  const { objects, whole, namespaces, skipped } = live ?? NOTHING;
  return { objects, origins: new Map(), whole, namespaces, skipped, seen };
}

function validation(adapters: readonly Adapter[]): Pick<ClusterSnapshot, 'validate' | 'parse'> {
  const check = validator(adapters, gateways);
  return {
    validate(object) {
      const result = check(object);
      return result.ok ? [] : result.issues.map(({ path, message }) => `${formatPath(path)}: ${message}`);
    },
    parse(object) {
      const result = check(object);
      return result.ok ? result.value : undefined;
    },
  };
}

const settingsOf = ({ ambassadorId, gatewayNamespace }: DoctorFlags): GatewaySettings => ({
  id: ambassadorId,
  namespace: gatewayNamespace,
});
