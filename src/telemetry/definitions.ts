import type { Definition } from './registry.ts';

const define = <const D extends Definition>(definition: D): D => definition;

const OBJECT = ['namespace', 'name'] as const;

/** From a local write to a gateway that reconfigures for minutes. */
const LAG_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300] as const;

/** Every metric there is. docs/metrics.md is generated from this table. */
export const METRICS = {
  buildInfo: define({
    name: 'meshcert_build_info',
    type: 'gauge',
    help: 'Always 1; its labels tell what runs.',
    labels: ['version', 'node'],
  }),
  notAfter: define({
    name: 'meshcert_certificate_not_after_timestamp_seconds',
    type: 'gauge',
    help: 'When the published leaf expires.',
    labels: [...OBJECT, 'mesh'],
  }),
  notBefore: define({
    name: 'meshcert_certificate_not_before_timestamp_seconds',
    type: 'gauge',
    help: 'Since when the published leaf is valid.',
    labels: [...OBJECT, 'mesh'],
  }),
  renewal: define({
    name: 'meshcert_certificate_renewal_timestamp_seconds',
    type: 'gauge',
    help: 'When the published leaf is due for renewal.',
    labels: [...OBJECT, 'mesh'],
  }),
  lastSuccess: define({
    name: 'meshcert_certificate_last_success_timestamp_seconds',
    type: 'gauge',
    help: 'When everything last stood in the cluster as it should.',
    labels: OBJECT,
  }),
  condition: define({
    name: 'meshcert_certificate_condition',
    type: 'gauge',
    help: 'Conditions of the MeshCertificate: 1 for True, 0 for False, -1 for Unknown.',
    labels: [...OBJECT, 'type'],
  }),
  held: define({
    name: 'meshcert_certificate_held',
    type: 'gauge',
    help: '1 while a newer leaf under a new root is held back.',
    labels: OBJECT,
  }),
  live: define({
    name: 'meshcert_certificate_live',
    type: 'gauge',
    help: '1 when the gateway is known to use the published pair, 0 when it is known not to.',
    labels: OBJECT,
  }),
  roots: define({
    name: 'meshcert_roots',
    type: 'gauge',
    help: 'Roots in the published trust bundle: those that the mesh names now, and those kept for older leaves.',
    labels: [...OBJECT, 'state'],
  }),
  rootNotAfter: define({
    name: 'meshcert_root_not_after_timestamp_seconds',
    type: 'gauge',
    help: 'When a root that the mesh names now expires.',
    labels: [...OBJECT, 'fingerprint'],
  }),
  issuerNotAfter: define({
    name: 'meshcert_issuer_not_after_timestamp_seconds',
    type: 'gauge',
    help: 'When the first of the CA certificates above the published leaf expires.',
    labels: [...OBJECT, 'issuer'],
  }),
  failures: define({
    name: 'meshcert_failures_total',
    type: 'counter',
    help: 'Failures by their code; docs/errors.md explains each.',
    labels: [...OBJECT, 'code'],
  }),
  rotations: define({
    name: 'meshcert_rotations_total',
    type: 'counter',
    help: 'Rotations published: of the leaf, or of the trust bundle alone.',
    labels: [...OBJECT, 'kind'],
  }),
  rotationLag: define({
    name: 'meshcert_rotation_lag_seconds',
    type: 'histogram',
    help: 'From the mesh handing out an identity to its standing in the cluster, without time held back on purpose.',
    labels: ['mesh'],
    buckets: LAG_BUCKETS,
  }),
  liveLag: define({
    name: 'meshcert_live_lag_seconds',
    type: 'histogram',
    help: 'From an identity standing in the cluster to the gateway using it.',
    labels: ['mesh'],
    buckets: LAG_BUCKETS,
  }),
  driftRepairs: define({
    name: 'meshcert_drift_repairs_total',
    type: 'counter',
    help: 'Objects put right after somebody else changed or deleted them.',
    labels: ['kind'],
  }),
  writes: define({
    name: 'meshcert_writes_total',
    type: 'counter',
    help: 'Objects written to the cluster.',
    labels: ['kind', 'action'],
  }),
  kubeRequests: define({
    name: 'meshcert_kube_requests_total',
    type: 'counter',
    help: 'Requests to the Kubernetes API, by verb, resource and HTTP status; 0 when no answer came.',
    labels: ['verb', 'resource', 'status'],
  }),
  kubeWriteLimit: define({
    name: 'meshcert_kube_write_limit',
    type: 'gauge',
    help: 'How many writes to the Kubernetes API may be under way at a time; it adapts to the API server.',
    labels: [],
  }),
  breakerOpen: define({
    name: 'meshcert_breaker_open',
    type: 'gauge',
    help: '1 while no further issuing is attempted because too many attempts failed.',
    labels: OBJECT,
  }),
  leader: define({
    name: 'meshcert_leader',
    type: 'gauge',
    help: '1 on the replica that holds the Lease.',
    labels: ['lease'],
  }),
  configErrors: define({
    name: 'meshcert_config_errors',
    type: 'gauge',
    help: 'Errors in the configuration file as it stands; the last good configuration is in force.',
    labels: [],
  }),
  processCpu: define({
    name: 'process_cpu_seconds_total',
    type: 'counter',
    help: 'User and system CPU time spent.',
    labels: [],
  }),
  processMemory: define({
    name: 'process_resident_memory_bytes',
    type: 'gauge',
    help: 'Resident memory.',
    labels: [],
  }),
  heapUsed: define({
    name: 'nodejs_heap_size_used_bytes',
    type: 'gauge',
    help: 'Objects on the JavaScript heap, garbage among them: what leaks grows here, what fragments does not.',
    labels: [],
  }),
  processStart: define({
    name: 'process_start_time_seconds',
    type: 'gauge',
    help: 'When the process started.',
    labels: [],
  }),
} as const satisfies Record<string, Definition>;
