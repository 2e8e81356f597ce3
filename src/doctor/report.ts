import { describe, type KubeObject, refOf } from '../core/object.ts';
import type { Check } from './check.ts';
import type { Origin } from './files.ts';
import { type Finding, SEVERITIES, type Severity } from './finding.ts';

export interface ReportInput {
  readonly findings: readonly Finding[];
  readonly checks: readonly Check[];
  readonly origins: ReadonlyMap<KubeObject, Origin>;
  /** How many objects were judged. */
  readonly judged: number;
  /** What could not be read. */
  readonly skipped: readonly string[];
  readonly version: string;
}

export const FORMATS = ['text', 'json', 'sarif'] as const;
export type Format = (typeof FORMATS)[number];

const count = (findings: readonly Finding[], severity: Severity) =>
  findings.filter((finding) => finding.severity === severity).length;
const plural = (n: number, noun: string) => `${n} ${noun}${n === 1 ? '' : 's'}`;

export function report(format: Format, input: ReportInput): string {
  if (format === 'text') return textReport(input);
  return `${JSON.stringify(format === 'json' ? jsonReport(input) : sarifReport(input), null, 2)}\n`;
}

function textReport({ findings, origins, judged, skipped }: ReportInput): string {
  const blocks = findings.map(({ code, severity, object, message, fix }) => {
    const origin = origins.get(object);
    const where = origin ? ` (${origin.file}:${origin.line})` : '';
    return `${severity} ${code} ${describe(refOf(object))}${where}\n  ${message}\n  fix: ${fix}\n`;
  });
  const counts = [...SEVERITIES].reverse().map((severity) => plural(count(findings, severity), severity));
  const notes = skipped.map((sentence) => `not looked at: ${sentence}\n`);
  return [...blocks, ...notes, `${counts.join(', ')} in ${plural(judged, 'object')}\n`].join('\n');
}

function jsonReport({ findings, origins, judged, skipped, checks }: ReportInput): object {
  return {
    summary: {
      objects: judged,
      ...Object.fromEntries([...SEVERITIES].reverse().map((severity) => [severity, count(findings, severity)])),
    },
    findings: findings.map(({ object, code, severity, message, fix }) => ({
      code,
      severity,
      title: checks.find((check) => check.code === code)?.title,
      object: refOf(object),
      ...origins.get(object),
      message,
      fix,
    })),
    skipped,
  };
}

/** SARIF 2.1.0, as code hosts show it beside the lines of a change. */
function sarifReport({ findings, origins, checks, version }: ReportInput): object {
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'meshcert doctor',
            version,
            rules: checks.map(({ code, title, severity }) => ({
              id: code,
              shortDescription: { text: title },
              defaultConfiguration: { level: severity },
            })),
          },
        },
        results: findings.map(({ code, severity, object, message, fix }) => ({
          ruleId: code,
          ruleIndex: checks.findIndex((check) => check.code === code),
          level: severity,
          message: { text: `${describe(refOf(object))}: ${message}. Fix: ${fix}` },
          locations: [location(object, origins.get(object))],
        })),
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
