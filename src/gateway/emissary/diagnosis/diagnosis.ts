import type { KubeObject, ObjectRef } from '../../../core/object.ts';
import type { Adapter } from '../../../mesh/adapter.ts';
import type { ClusterSnapshot, Diagnosis, Finding, GatewaySettings } from '../../diagnosis.ts';
import { DEFAULT_ENV, type EmissaryEnv } from '../reading/env.ts';
import { findGateways } from '../reading/installation.ts';
import { contextSpec } from '../reading/kinds.ts';
import { EMISSARY_RESOURCES } from '../spec/resources.ts';
import type { DoctorCheck } from './check.ts';
import { contextChecks } from './contexts.ts';
import { gatewayChecks } from './gateway-checks.ts';
import { mappingChecks } from './mappings.ts';
import { meshCertificateChecks } from './mesh-certificates.ts';
import { pairChecks } from './pairs.ts';
import { secretChecks } from './secrets.ts';
import { objectsFor, worldOf } from './world.ts';

const OWN: readonly DoctorCheck[] = [
  ...contextChecks,
  ...secretChecks,
  ...pairChecks,
  ...mappingChecks,
  ...gatewayChecks,
  ...meshCertificateChecks,
];

export const emissaryDiagnosis: Diagnosis = {
  resources: Object.values(EMISSARY_RESOURCES),
  checks: OWN,
  areas: [
    { prefix: 'MC10', name: 'TLSContexts' },
    { prefix: 'MC11', name: 'Secrets' },
    { prefix: 'MC12', name: 'certificates and keys' },
    { prefix: 'MC13', name: 'Mappings' },
    { prefix: 'MC14', name: 'gateway' },
    { prefix: 'MC50', name: 'MeshCertificates' },
  ],
  objectsToRead,
  diagnose,
  served: [
    {
      resource: EMISSARY_RESOURCES.tlsContexts,
      fix: 'install the definitions of Emissary 3.x or 4.x (chart emissary-crds, or emissary-crds-chart)',
    },
  ],
};

function diagnose(snapshot: ClusterSnapshot, { id, namespace }: GatewaySettings): Finding[] {
  const env: Partial<EmissaryEnv> = {
    ...(id === undefined ? {} : { ambassadorId: id }),
    ...(namespace === undefined ? {} : { namespace }),
  };
  const gateways = findGateways(snapshot.objects);
  const worlds =
    gateways.length > 0
      ? gateways.map(({ object, env: found }) => worldOf(snapshot, { ...found, ...env }, object))
      : [worldOf(snapshot, { ...DEFAULT_ENV, ...env }, undefined)];
  const checks = [...OWN, ...snapshot.adapters.flatMap(adapterChecks)].sort((a, b) => (a.code < b.code ? -1 : 1));
  return worlds.flatMap((world) =>
    checks.flatMap(({ code, severity, run }) => [...run(world)].map((hit) => ({ severity, ...hit, code }))),
  );
}

const adapterChecks = ({ mesh, checks = [] }: Adapter): readonly DoctorCheck[] =>
  checks.map(({ run, ...check }) => ({ ...check, run: (world) => run(objectsFor(mesh, world)) }));

function objectsToRead(object: KubeObject): readonly ObjectRef[] {
  if (object.kind !== EMISSARY_RESOURCES.tlsContexts.kind) return [];
  const { secret, caSecret, crlSecret } = contextSpec(object);
  const { namespace = '' } = object.metadata;
  return [secret, caSecret, crlSecret].flatMap((name) => {
    if (name === undefined) return [];
    const dot = name.lastIndexOf('.');
    const places = [
      { namespace, name },
      ...(dot < 0 ? [] : [{ namespace: name.slice(dot + 1), name: name.slice(0, dot) }]),
    ];
    return places.map((place) => ({ apiVersion: 'v1', kind: 'Secret', ...place }));
  });
}
