import { z } from 'zod';
import { jsonSchema } from '../../src/config/schema/crd.ts';
import { type GatewayFields, namespaceName, undottedName } from '../../src/config/schema/mesh-certificate.ts';

import type { Adapter } from '../../src/mesh/adapter.ts';
import { LOG_LEVELS } from '../../src/mesh/log.ts';
import { type ValueDescription, withDescriptions } from './values-descriptions.ts';

const text = () => z.string();
const map = () => z.record(z.string(), z.string());
/** Parts of a pod that Kubernetes itself validates. */
const raw = () => z.array(z.record(z.string(), z.unknown()));
const open = () => z.record(z.string(), z.unknown());
/** A number or a percentage; empty if neither is set. */
const count = () => z.union([z.int().min(0), z.string().regex(/^([0-9]{1,3}%)?$/)]);
/** An empty name counts as absent. */
const nameOrEmpty = () =>
  z
    .string()
    .max(63)
    .regex(/^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$/);
const monitor = () =>
  z.strictObject({ enabled: z.boolean().optional(), interval: text().optional(), labels: map().optional() }).optional();

/** The possible values of deploy/helm/meshcert/values.yaml. */
const values = z.strictObject({
  mode: z.enum(['deployment', 'daemonset', 'sidecar']).optional(),
  source: z.enum(['resources', 'file']).optional(),
  certificates: z.array(z.strictObject({ name: undottedName(), spec: z.unknown() })).optional(),
  observe: z.enum(['names', 'labels']).optional(),
  gatewayApi: z.boolean().optional(),
  watchNamespaces: z.array(namespaceName()).optional(),
  allNamespaces: z.boolean().optional(),
  allow: z
    .strictObject({
      serviceAccounts: z.array(z.string().regex(/^[^/\s]+\/[^/\s]+$/)).optional(),
      audiences: z.array(text()).optional(),
      addresses: z.array(text()).optional(),
    })
    .optional(),
  admissionPolicy: z
    .strictObject({
      enabled: z.boolean().optional(),
      validationActions: z
        .array(z.enum(['Deny', 'Warn', 'Audit']))
        .min(1)
        .optional(),
    })
    .optional(),
  replicas: z.int().min(0).max(100).optional(),
  shards: z.int().min(1).max(64).optional(),
  leaseName: undottedName().optional(),
  logLevel: z.enum(LOG_LEVELS).optional(),
  gatewayDiagnostics: text().optional(),
  allowedHosts: z.array(z.string().regex(/^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/)).optional(),
  nameOverride: nameOrEmpty().optional(),
  fullnameOverride: nameOrEmpty().optional(),
  commonLabels: map().optional(),
  crds: z.object({ enabled: z.boolean().optional() }).optional(),
  image: z
    .strictObject({
      repository: text().optional(),
      tag: text().optional(),
      digest: z
        .string()
        .regex(/^(sha256:[0-9a-f]{64})?$/)
        .optional(),
      pullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']).optional(),
    })
    .optional(),
  imagePullSecrets: raw().optional(),
  serviceAccount: z
    .strictObject({ create: z.boolean().optional(), name: text().optional(), annotations: map().optional() })
    .optional(),
  rbac: z.strictObject({ create: z.boolean().optional() }).optional(),
  socketDirectory: z.union([z.literal(''), z.string().startsWith('/')]).optional(),
  tokens: z
    .array(z.strictObject({ path: text(), audience: text(), expirationSeconds: z.int().min(600).optional() }))
    .optional(),
  port: z.int().min(1).max(65_535).optional(),
  service: z.strictObject({ annotations: map().optional() }).optional(),
  resources: open().optional(),
  podSecurityContext: open().optional(),
  securityContext: open().optional(),
  livenessProbe: open().optional(),
  readinessProbe: open().optional(),
  updateStrategy: open().optional(),
  revisionHistoryLimit: z.int().min(0).optional(),
  terminationGracePeriodSeconds: z.int().min(0).optional(),
  nodeSelector: map().optional(),
  tolerations: raw().optional(),
  affinity: open().optional(),
  topologySpreadConstraints: raw().optional(),
  priorityClassName: text().optional(),
  podLabels: map().optional(),
  podAnnotations: map().optional(),
  extraArgs: z.array(text()).optional(),
  extraEnv: raw().optional(),
  extraVolumes: raw().optional(),
  extraVolumeMounts: raw().optional(),
  extraObjects: z.array(z.union([z.string(), z.record(z.string(), z.unknown())])).optional(),
  podDisruptionBudget: z
    .strictObject({
      enabled: z.boolean().optional(),
      maxUnavailable: count().optional(),
      minAvailable: count().optional(),
    })
    .optional(),
  networkPolicy: z
    .strictObject({ enabled: z.boolean().optional(), ingressFrom: raw().optional(), egress: raw().optional() })
    .optional(),
  serviceMonitor: monitor(),
  podMonitor: monitor(),
  prometheusRule: z
    .strictObject({ enabled: z.boolean().optional(), labels: map().optional(), job: z.string().optional() })
    .optional(),
  dashboard: z
    .strictObject({
      enabled: z.boolean().optional(),
      namespace: z.union([z.literal(''), namespaceName()]).optional(),
      labels: map().optional(),
      annotations: map().optional(),
    })
    .optional(),
  global: open().optional(),
});

/** values.schema.json: Helm validates the values of an install against it, down to the spec of each MeshCertificate. */
export function renderValuesSchema(
  adapters: readonly Adapter[],
  gateways: readonly GatewayFields[],
  descriptions: readonly ValueDescription[],
): string {
  // Helm 3 supports JSON schema up to draft 7.
  const schema = z.toJSONSchema(values, { target: 'draft-7', io: 'input', unrepresentable: 'any' });
  const document = jsonSchema(adapters, gateways) as { properties: { spec: unknown } };
  const { certificates } = schema.properties as { certificates: { items: { properties: Record<string, unknown> } } };
  certificates.items.properties.spec = document.properties.spec;
  return `${JSON.stringify(withDescriptions(schema, descriptions), null, 2)}\n`;
}
