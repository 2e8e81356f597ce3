import type { Definition } from './registry.ts';

const define = <const D extends Definition>(definition: D): D => definition;

const OBJECT = ['namespace', 'name'] as const;

/** From a local write to a gateway that reconfigures for minutes. */
const LAG_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300] as const;

/** Every metric. docs/metrics.md is generated from this table. */
export const METRICS = {
  buildInfo: define({
    name: 'meshcert_build_info',
    type: 'gauge',
    help: 'Always 1; the labels name the version.',
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
    help: 'Start of the validity of the published leaf.',
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
    help: 'When the published objects last matched the desired state.',
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
    help: '1 when the gateway uses the published pair, 0 when it uses another.',
    labels: OBJECT,
  }),
  upstreamVerified: define({
    name: 'meshcert_upstream_verified',
    type: 'gauge',
    help: '1 when the upstream presents the expected identity, 0 when it presents another, -1 when that is not known.',
    labels: [...OBJECT, 'upstream'],
  }),
  roots: define({
    name: 'meshcert_roots',
    type: 'gauge',
    help: 'Roots in the published trust bundle: those that the mesh names now, and those retained for older leaves.',
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
    help: 'When the first CA certificate above the published leaf expires.',
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
    help: 'Published rotations: of the leaf, or of the trust bundle alone.',
    labels: [...OBJECT, 'kind'],
  }),
  rotationLag: define({
    name: 'meshcert_rotation_lag_seconds',
    type: 'histogram',
    help: 'Time from receiving an identity from the mesh to reading it back from the cluster, without the time of a hold.',
    labels: ['mesh'],
    buckets: LAG_BUCKETS,
  }),
  liveLag: define({
    name: 'meshcert_live_lag_seconds',
    type: 'histogram',
    help: 'Time from the publication of an identity to the gateway using it.',
    labels: ['mesh'],
    buckets: LAG_BUCKETS,
  }),
  driftRepairs: define({
    name: 'meshcert_drift_repairs_total',
    type: 'counter',
    help: 'Objects restored after another client changed or deleted them.',
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
    help: 'Requests to the Kubernetes API, by verb, resource and HTTP status; 0 when there was no response.',
    labels: ['verb', 'resource', 'status'],
  }),
  kubeWriteLimit: define({
    name: 'meshcert_kube_write_limit',
    type: 'gauge',
    help: 'Maximum concurrent writes to the Kubernetes API; it adapts to the API server.',
    labels: [],
  }),
  breakerOpen: define({
    name: 'meshcert_breaker_open',
    type: 'gauge',
    help: '1 while the agent requests no certificates because it has requested too many within the hour.',
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
    help: 'Errors in the current configuration file; while there are any, the last valid configuration stays in use.',
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
    help: 'Size of the objects on the JavaScript heap, garbage included.',
    labels: [],
  }),
  processStart: define({
    name: 'process_start_time_seconds',
    type: 'gauge',
    help: 'When the process started.',
    labels: [],
  }),
} as const satisfies Record<string, Definition>;
