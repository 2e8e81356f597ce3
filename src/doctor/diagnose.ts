import { keyOf, refOf } from '../core/object.ts';
import { DEFAULT_ENV, type EmissaryEnv } from '../gateway/env.ts';
import type { Check } from './check.ts';
import { consulChecks } from './checks/consul.ts';
import { contextChecks } from './checks/contexts.ts';
import { gatewayChecks } from './checks/gateway.ts';
import { istioChecks } from './checks/istio.ts';
import { linkerdChecks } from './checks/linkerd.ts';
import { mappingChecks } from './checks/mappings.ts';
import { meshCertificateChecks } from './checks/mesh-certificates.ts';
import { pairChecks } from './checks/pairs.ts';
import { secretChecks } from './checks/secrets.ts';
import { type Finding, SEVERITIES } from './finding.ts';
import { findGateways } from './gateway.ts';
import { type Snapshot, worldOf } from './world.ts';

/** Every check there is, by code. */
export const CHECKS: readonly Check[] = [
  ...contextChecks,
  ...secretChecks,
  ...pairChecks,
  ...mappingChecks,
  ...gatewayChecks,
  ...istioChecks,
  ...linkerdChecks,
  ...consulChecks,
  ...meshCertificateChecks,
];

/** The checks by what they are about, in the order of docs/checks.md. */
export const AREAS = [
  { prefix: 'MC10', name: 'TLSContexts' },
  { prefix: 'MC11', name: 'Secrets' },
  { prefix: 'MC12', name: 'certificates and keys' },
  { prefix: 'MC13', name: 'Mappings' },
  { prefix: 'MC14', name: 'gateway' },
  { prefix: 'MC20', name: 'Istio' },
  { prefix: 'MC30', name: 'Linkerd' },
  { prefix: 'MC40', name: 'Consul' },
  { prefix: 'MC50', name: 'MeshCertificates' },
] as const;

/**
 * What is wrong in a snapshot, for each gateway in it; without one, for a gateway with its defaults. Worst first, then
 * by code and object. `env` wins over what a gateway's environment says.
 */
export function diagnose(snapshot: Snapshot, env: Partial<EmissaryEnv> = {}): Finding[] {
  const gateways = findGateways(snapshot.objects);
  const worlds =
    gateways.length > 0
      ? gateways.map(({ object, env: found }) => worldOf(snapshot, { ...found, ...env }, object))
      : [worldOf(snapshot, { ...DEFAULT_ENV, ...env }, undefined)];
  const findings = new Map<string, Finding>();
  for (const world of worlds) {
    for (const { code, severity, run } of CHECKS) {
      for (const hit of run(world)) {
        const key = `${code} ${keyOf(refOf(hit.object))} ${hit.message}`;
        if (!findings.has(key)) findings.set(key, { severity, ...hit, code });
      }
    }
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
