import type { CheckArea } from '../gateway/gateway.ts';
import { type CheckTitle, type Finding, SEVERITIES, type Severity } from '../mesh/object-check.ts';
import { printable } from '../mesh/secrets.ts';
import { describe, type KubeObject, refOf } from '../objects/objects.ts';
import type { Origin } from './doctor.ts';
import { CLUSTER, LOOKS, type Seen } from './looks.ts';

export interface ReportInput {
  readonly findings: readonly Finding[];
  readonly checks: readonly CheckTitle[];
  readonly areas: readonly CheckArea[];
  /** The results for the running system, in order. */
  readonly seen: readonly Seen[];
  readonly origins: ReadonlyMap<KubeObject, Origin>;
  /** Number of objects that were checked. */
  readonly judged: number;
  /** What could not be read. */
  readonly skipped: readonly string[];
  readonly version: string;
}

export const FORMATS = ['text', 'json', 'sarif'] as const;
export type Format = (typeof FORMATS)[number];

/** One line about what was checked: a check of the running system, or a group of checks of objects. */
interface Checked extends Pick<Seen, 'state' | 'message'>, Partial<Pick<Seen, 'code' | 'object'>> {
  readonly area: string;
  /** Of the worst finding, where `state` is failed. */
  readonly severity: Severity | undefined;
}

const count = (findings: readonly Finding[], severity: Severity) =>
  findings.filter((finding) => finding.severity === severity).length;
const plural = (n: number, noun: string) => `${n} ${noun}${n === 1 ? '' : 's'}`;
const WORDS = { passed: 'ok  ', warned: 'WARN', failed: 'FAIL', skipped: 'skip' } as const;
const resultOf = ({ state, severity }: Checked): keyof typeof WORDS =>
  state === 'failed' && severity === 'warning' ? 'warned' : state;

export function report(format: Format, input: ReportInput): string {
  if (format === 'text') return textReport(input);
  return `${JSON.stringify(format === 'json' ? jsonReport(input) : sarifReport(input), null, 2)}\n`;
}

function textReport(input: ReportInput): string {
  const { findings, origins, judged, skipped } = input;
  const blocks = findings.map(({ code, severity, object, message, fix }) => {
    const origin = origins.get(object);
    const where = origin ? ` (${origin.file}:${origin.line})` : '';
    const lines = [`${severity} ${code} ${titleOf(object)}${where}`, `  ${message}`, `  fix: ${fix}`];
    return lines.map((line) => `${printable(line)}\n`).join('');
  });
  const notes = skipped.map((sentence) => `${printable(`not checked: ${sentence}`)}\n`);
  const checked = checkedOf(input);
  const areas = [...new Set(checked.map(({ area }) => area))].map((area) => {
    const lines = checked
      .filter((one) => one.area === area)
      .map((one) => `${printable(`  ${WORDS[resultOf(one)]}  ${one.message}`)}\n`);
    return `${area}\n${lines.join('')}`;
  });
  const counts = [...SEVERITIES].reverse().map((severity) => plural(count(findings, severity), severity));
  const states = (['passed', 'warned', 'failed', 'skipped'] as const).map((state) => {
    return `${checked.filter((one) => resultOf(one) === state).length} ${state}`;
  });
  const summary = `${counts.join(', ')} in ${plural(judged, 'object')}; checked: ${states.join(', ')}\n`;
  return [...blocks, ...notes, ...areas, summary].join('\n');
}

const titleOf = (object: KubeObject): string => (object === CLUSTER ? 'cluster' : describe(refOf(object)));

function checkedOf({ findings, checks, areas, seen, judged }: ReportInput): Checked[] {
  const looks = seen.map(({ code, state, severity, object, message }): Checked => {
    const area = LOOKS.find((look) => look.code === code)?.area ?? code;
    const about = object === CLUSTER ? message : `${titleOf(object)}: ${message}`;
    return { area, code, state, severity, object, message: state === 'failed' ? `${code} ${about}` : about };
  });
  const groups =
    judged === 0
      ? []
      : areas.flatMap(({ name, prefix }): Checked[] => {
          const own = checks.filter(({ code }) => code.startsWith(prefix));
          const found = findings.filter(
            ({ code }) => code.startsWith(prefix) && own.some((check) => check.code === code),
          );
          const result = found.length === 0 ? 'nothing found' : plural(found.length, 'finding');
          const severity = [...SEVERITIES].reverse().find((one) => found.some((finding) => finding.severity === one));
          return [
            {
              area: 'objects',
              state: severity === undefined || severity === 'note' ? 'passed' : 'failed',
              severity,
              message: `${name}: ${plural(own.length, 'check')}, ${result}`,
            },
          ];
        });
  return [...looks, ...groups];
}

function jsonReport(input: ReportInput): object {
  const { findings, origins, judged, skipped, checks } = input;
  const rules: readonly CheckTitle[] = [...checks, ...LOOKS];
  return {
    summary: {
      objects: judged,
      ...Object.fromEntries([...SEVERITIES].reverse().map((severity) => [severity, count(findings, severity)])),
    },
    findings: findings.map(({ object, code, severity, message, fix }) => ({
      code,
      severity,
      title: rules.find((rule) => rule.code === code)?.title,
      object: refOf(object),
      ...origins.get(object),
      message,
      fix,
    })),
    checked: checkedJson(input),
    skipped,
  };
}

const checkedJson = (input: ReportInput): object[] =>
  checkedOf(input).map(({ object, severity: _, ...one }) => ({ ...one, ...(object ? { object: refOf(object) } : {}) }));

/** SARIF 2.1.0, which code hosts show beside the lines of a change. Passed checks are in the run's properties. */
function sarifReport(input: ReportInput): object {
  const { findings, origins, checks, skipped, version } = input;
  const rules: readonly CheckTitle[] = [...checks, ...LOOKS];
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'meshcert doctor',
            version,
            rules: rules.map(({ code, title, severity }) => ({
              id: code,
              shortDescription: { text: title },
              defaultConfiguration: { level: severity },
            })),
          },
        },
        invocations: [
          {
            executionSuccessful: true,
            toolExecutionNotifications: skipped.map((text) => ({
              level: 'note',
              message: { text: `not checked: ${text}` },
            })),
          },
        ],
        results: findings.map(({ code, severity, object, message, fix }) => ({
          ruleId: code,
          ruleIndex: rules.findIndex((rule) => rule.code === code),
          level: severity,
          message: { text: `${titleOf(object)}: ${message}. Fix: ${fix}` },
          locations: [location(object, origins.get(object))],
        })),
        properties: { checked: checkedJson(input) },
      },
    ],
  };
}

function location(object: KubeObject, origin: Origin | undefined): object {
  const { kind, metadata } = object;
  const name = [metadata.namespace, kind, metadata.name].filter(Boolean).join('/');
  const logical = { logicalLocations: [{ fullyQualifiedName: name, kind: 'resource' }] };
  if (!origin) return logical;
  const uri = origin.file.split('\\').join('/');
  return { physicalLocation: { artifactLocation: { uri }, region: { startLine: origin.line } }, ...logical };
}
