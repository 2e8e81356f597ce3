import { keyOf, refOf } from '../core/object.ts';
import { DEFAULT_ENV, type EmissaryEnv } from '../gateway/emissary/reading/env.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { SEVERITIES } from '../mesh/object-check.ts';
import type { DoctorCheck } from './check.ts';
import { contextChecks } from './checks/contexts.ts';
import { gatewayChecks } from './checks/gateway.ts';
import { mappingChecks } from './checks/mappings.ts';
import { meshCertificateChecks } from './checks/mesh-certificates.ts';
import { pairChecks } from './checks/pairs.ts';
import { secretChecks } from './checks/secrets.ts';
import type { Finding } from './finding.ts';
import { findGateways } from './gateway.ts';
import { type ClusterSnapshot, objectsFor, worldOf } from './world.ts';

const OWN: readonly DoctorCheck[] = [
  ...contextChecks,
  ...secretChecks,
  ...pairChecks,
  ...mappingChecks,
  ...gatewayChecks,
  ...meshCertificateChecks,
];

/** Every check there is, by code. */
export function checksOf(adapters: readonly Adapter[]): DoctorCheck[] {
  const theirs = adapters.flatMap(({ mesh, checks = [] }) =>
    checks.map(({ run, ...check }): DoctorCheck => ({ ...check, run: (world) => run(objectsFor(mesh, world)) })),
  );
  return [...OWN, ...theirs].sort((a, b) => (a.code < b.code ? -1 : 1));
}

/** Checks by what they are about. */
export interface Area {
  readonly prefix: string;
  readonly name: string;
}

/** In the order of docs/checks.md. */
export function areasOf(adapters: readonly Adapter[]): Area[] {
  const theirs = adapters.flatMap(({ title, checks }) =>
    checks?.[0] ? [{ prefix: checks[0].code.slice(0, 4), name: title }] : [],
  );
  return [
    { prefix: 'MC10', name: 'TLSContexts' },
    { prefix: 'MC11', name: 'Secrets' },
    { prefix: 'MC12', name: 'certificates and keys' },
    { prefix: 'MC13', name: 'Mappings' },
    { prefix: 'MC14', name: 'gateway' },
    { prefix: 'MC50', name: 'MeshCertificates' },
    ...theirs,
  ].sort((a, b) => (a.prefix < b.prefix ? -1 : 1));
}

/**
 * What is wrong in a snapshot, for each gateway in it; without one, for a gateway with its defaults. Worst first, then
 * by code and object. `env` wins over what a gateway's environment says.
 */
export function diagnose(snapshot: ClusterSnapshot, env: Partial<EmissaryEnv> = {}): Finding[] {
  const gateways = findGateways(snapshot.objects);
  const worlds =
    gateways.length > 0
      ? gateways.map(({ object, env: found }) => worldOf(snapshot, { ...found, ...env }, object))
      : [worldOf(snapshot, { ...DEFAULT_ENV, ...env }, undefined)];
  const checks = checksOf(snapshot.adapters);
  const findings = new Map<string, Finding>();
  for (const world of worlds) {
    for (const { code, severity, run } of checks) {
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
