import { usedGateways } from '../config/validate.ts';
import { type KubeObject, keyOf, refOf } from '../core/object.ts';
import type { CheckArea, CheckTitle, ClusterSnapshot, Finding, GatewaySettings } from '../gateway/diagnosis.ts';
import { gateways } from '../gateways.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { fields } from '../mesh/kube-object.ts';
import { SEVERITIES } from '../mesh/object-check.ts';

const diagnoses = gateways.flatMap(({ diagnosis }) => diagnosis ?? []);

/** Every check, by code. */
export function checksOf(adapters: readonly Adapter[]): CheckTitle[] {
  const own = diagnoses.flatMap(({ checks }) => checks);
  return [...own, ...adapters.flatMap(({ checks = [] }) => checks)].sort((a, b) => (a.code < b.code ? -1 : 1));
}

/** In the order of docs/checks.md. */
export function areasOf(adapters: readonly Adapter[]): CheckArea[] {
  const theirs = adapters.flatMap(({ title, checks }) =>
    checks?.[0] ? [{ prefix: checks[0].code.slice(0, 4), name: title }] : [],
  );
  return [...diagnoses.flatMap(({ areas }) => areas), ...theirs].sort((a, b) => (a.prefix < b.prefix ? -1 : 1));
}

/** What is wrong in a snapshot, by every kind of gateway. Worst first, then by code and object; each once. */
export function diagnose(snapshot: ClusterSnapshot, settings: GatewaySettings = {}): Finding[] {
  const findings = new Map<string, Finding>();
  const uses = (object: KubeObject, kind: string) =>
    usedGateways(fields(object.spec), gateways).some((gateway) => gateway.kind === kind);
  for (const finding of diagnoses.flatMap((one) => one.diagnose({ uses, ...snapshot }, settings))) {
    const key = `${finding.code} ${keyOf(refOf(finding.object))} ${finding.message}`;
    if (!findings.has(key)) findings.set(key, finding);
  }
  return worstFirst([...findings.values()]);
}

export function worstFirst(findings: readonly Finding[]): Finding[] {
  return [...findings].sort(
    (a, b) =>
      SEVERITIES.indexOf(b.severity) - SEVERITIES.indexOf(a.severity) ||
      a.code.localeCompare(b.code) ||
      keyOf(refOf(a.object)).localeCompare(keyOf(refOf(b.object))),
  );
}
