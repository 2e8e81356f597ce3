import { allowFlags, needsOf } from '../../config/allow.ts';
import { rbacFor } from '../../config/rbac.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { type KubeObject, MANAGED_BY_LABEL } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { AgentMount } from '../../mesh/cluster.ts';
import { KUBERNETES_AUDIENCE } from '../../mesh/input/token.ts';
import type { GatewayFinding } from '../discover/gateway.ts';
import { CREATED_LABELS, ONBOARD_LABEL } from './document.ts';
import { ONBOARD_FIELD_MANAGER } from './moved.ts';

/** Name of the agent's ServiceAccount, Deployment and Lease. */
export const AGENT_NAME = 'meshcert';

const labels = {
  'app.kubernetes.io/name': AGENT_NAME,
  [MANAGED_BY_LABEL]: 'meshcert',
  [ONBOARD_LABEL]: 'true',
};

/** The account of a gateway that has none in its namespace, if a token for it is needed. */
export function accountFor(
  { installation }: GatewayFinding,
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): KubeObject[] {
  const { serviceAccount: name, home: namespace, workload } = installation;
  const isMinted = certificates
    .flatMap((certificate) => needsOf(certificate, adapters))
    .some((need) => need.kind === 'token' && need.name === name && need.namespace === namespace);
  if (!isMinted || workload?.metadata.namespace === namespace) return [];
  return [{ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace, labels: CREATED_LABELS } }];
}

/** What the agent needs for these certificates: its account, exactly the Roles, and on request the agent itself. */
export function grantsFor(
  certificates: readonly MeshCertificate[],
  namespace: string,
  image: string | undefined,
  {
    adapters,
    gateways,
    mounts,
  }: {
    readonly adapters: readonly Adapter[];
    readonly gateways: readonly Gateway[];
    readonly mounts: readonly AgentMount[];
  },
): KubeObject[] {
  const roles = rbacFor(certificates, {
    adapters,
    gateways,
    serviceAccount: { name: AGENT_NAME, namespace },
    leaseName: AGENT_NAME,
    shards: 1,
    resources: true,
    name: ONBOARD_FIELD_MANAGER,
  });
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: AGENT_NAME, namespace, labels } },
    ...roles.map((role) => ({
      ...role,
      metadata: { ...role.metadata, labels: { ...role.metadata.labels, ...labels } },
    })),
    ...(image === undefined
      ? []
      : [deployment({ namespace, image, flags: audienceFlags(certificates, adapters), adapters, mounts })]),
  ];
}

/**
 * Audiences that open the Kubernetes API must be listed, and if one is listed, all must be. Without them, none is
 * listed: a further MeshCertificate then needs no other flags.
 */
export function audienceFlags(
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): readonly string[] {
  const flags = allowFlags(certificates, adapters).filter((flag) => flag.startsWith('--allow-audience='));
  return flags.includes(`--allow-audience=${KUBERNETES_AUDIENCE}`) ? flags : [];
}

function deployment({
  namespace,
  image,
  flags,
  adapters,
  mounts,
}: {
  readonly namespace: string;
  readonly image: string;
  readonly flags: readonly string[];
  readonly adapters: readonly Adapter[];
  readonly mounts: readonly AgentMount[];
}): KubeObject {
  const volumeMounts = mounts.map(({ volume: { name }, mountPath }) => ({ name, mountPath, readOnly: true }));
  const selector = { 'app.kubernetes.io/name': AGENT_NAME };
  const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: AGENT_NAME, namespace, labels },
    spec: {
      replicas: 2,
      selector: { matchLabels: selector },
      template: {
        metadata: {
          labels: selector,
          // A sidecar would wrap the agent's own TLS to the mesh's CA in another TLS.
          annotations: Object.assign({}, ...adapters.map(({ pods }) => pods?.notInjected)),
        },
        spec: {
          serviceAccountName: AGENT_NAME,
          securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
          containers: [
            {
              name: 'agent',
              image,
              args: ['agent', '--observe', 'names', ...flags],
              env: [field('POD_NAME', 'metadata.name'), field('POD_NAMESPACE', 'metadata.namespace')],
              ports: [{ name: 'http', containerPort: 9464 }],
              readinessProbe: { httpGet: { path: '/readyz', port: 'http' } },
              livenessProbe: { httpGet: { path: '/healthz', port: 'http' } },
              securityContext: {
                allowPrivilegeEscalation: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ['ALL'] },
              },
              ...(mounts.length === 0 ? {} : { volumeMounts }),
            },
          ],
          ...(mounts.length === 0 ? {} : { volumes: mounts.map(({ volume }) => volume) }),
        },
      },
    },
  };
}
