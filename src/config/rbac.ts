import type { Adapter } from '../mesh/adapter.ts';
import { AGENT_LABEL, type KubeObject } from '../objects/objects.ts';
import { needsOf } from './allow.ts';
import type { GatewayFields, MeshCertificate, PolicyRule } from './schema/mesh-certificate.ts';

export interface RbacOptions {
  /** The account that gets these permissions. */
  readonly serviceAccount: { readonly name: string; readonly namespace: string };
  /** Name of the Lease in the agent's namespace; with `shards` above 1, `-0`, `-1`, … are appended to it. */
  readonly leaseName: string;
  readonly shards: number;
  /** Whether MeshCertificates are custom resources (their status and Events are written) or documents of a file. */
  readonly resources: boolean;
  /**
   * Begins the name of each Role and binding; a dot and the agent's namespace follow, so that agents of two namespaces
   * share none. Each tool that writes rights has its own, so that none replaces what another has written.
   */
  readonly name: string;
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly GatewayFields[];
}

const READ = ['get', 'list', 'watch'] as const;
const OURS = 'meshcert.dev';
/** In place of a namespace: a ClusterRole. */
const EVERYWHERE = '*';

/**
 * Roles and RoleBindings for exactly these MeshCertificates, for `agent --observe names`. Only the published Secrets
 * can be read. Kubernetes cannot restrict `create` by name: with it, Secrets can be added, but existing ones can be
 * neither read nor changed.
 */
export function rbacFor(certificates: readonly MeshCertificate[], options: RbacOptions): readonly KubeObject[] {
  const rules = new Map<string, PolicyRule[]>();
  const add = (namespace: string, ...more: readonly PolicyRule[]) =>
    rules.set(namespace, [...(rules.get(namespace) ?? []), ...more]);

  add(options.serviceAccount.namespace, ...leaseRules(options));
  for (const certificate of certificates) {
    const { metadata } = certificate;
    const namespace = metadata.namespace ?? options.serviceAccount.namespace;
    add(namespace, ...publicationRules(certificate, options));
    const located = { ...certificate, metadata: { ...metadata, namespace } };
    for (const need of needsOf(located, options.adapters)) {
      if (need.kind === 'configMap') add(need.namespace, named('configmaps', [need.name], READ));
      if (need.kind === 'clusterTrustBundle') add(EVERYWHERE, trustBundle(need.name));
      if (need.kind === 'token') {
        add(need.namespace, named('serviceaccounts/token', [need.name], ['create']));
        // Whether it is being deleted, and whether it consents.
        add(need.namespace, named('serviceaccounts', [need.name], ['get']));
      }
    }
    for (const { namespace: place, rule } of gatewayRights(located, options)) add(place, rule);
  }
  return [...rules.entries()].flatMap(([namespace, list]) => grant(namespace, merged(list), options));
}

const named = (resource: string, resourceNames: readonly string[], verbs: readonly string[]): PolicyRule => ({
  apiGroups: [''],
  resources: [resource],
  resourceNames,
  verbs,
});

const trustBundle = (name: string): PolicyRule => ({
  apiGroups: ['certificates.k8s.io'],
  resources: ['clustertrustbundles'],
  resourceNames: [name],
  verbs: READ,
});

function leaseRules({ leaseName, shards }: RbacOptions): PolicyRule[] {
  // The last one is how a replica requests a shard from another.
  const names =
    shards <= 1
      ? [leaseName]
      : [...Array.from({ length: shards }, (_, shard) => `${leaseName}-${shard}`), `${leaseName}-handover`];
  const leases = { apiGroups: ['coordination.k8s.io'], resources: ['leases'] };
  return [
    { ...leases, verbs: ['create'] },
    { ...leases, resourceNames: names, verbs: ['get', 'update', 'watch'] },
  ];
}

function publicationRules({ metadata, spec }: MeshCertificate, { resources }: RbacOptions): PolicyRule[] {
  const verbs = [...READ, 'patch', ...(spec.deletionPolicy === 'Delete' ? ['delete'] : [])];
  const rules: PolicyRule[] = [
    { apiGroups: [''], resources: ['secrets'], verbs: ['create'] },
    named(
      'secrets',
      [spec.caSecretName, spec.secretName, ...(spec.crlSecretName === undefined ? [] : [spec.crlSecretName])],
      verbs,
    ),
  ];
  if (spec.configMapName !== undefined) {
    rules.push({ apiGroups: [''], resources: ['configmaps'], verbs: ['create'] });
    rules.push(named('configmaps', [spec.configMapName], verbs));
  }
  if (resources) {
    rules.push({ apiGroups: [OURS], resources: ['meshcertificates'], verbs: READ });
    rules.push({
      apiGroups: [OURS],
      resources: ['meshcertificates/status'],
      resourceNames: [metadata.name],
      verbs: ['patch'],
    });
    if (spec.deletionPolicy === 'Delete') {
      // For the finalizer.
      rules.push({
        apiGroups: [OURS],
        resources: ['meshcertificates'],
        resourceNames: [metadata.name],
        verbs: ['patch'],
      });
    }
    rules.push({ apiGroups: ['', 'events.k8s.io'], resources: ['events'], verbs: ['create', 'patch'] });
  }
  return rules;
}

function* gatewayRights(certificate: MeshCertificate, { adapters, gateways }: RbacOptions) {
  const adapter = adapters.find(({ mesh }) => mesh === certificate.spec.mesh.name);
  for (const gateway of gateways) {
    const config = certificate.spec.gateways[gateway.kind];
    if (config === undefined) continue;
    yield* gateway.rights(config, certificate, {
      sniPerTarget: adapter?.sniPerTarget === true,
      readsAccounts: certificate.spec.upstreams?.serviceAccounts,
    });
  }
}

/** Merges rules that differ only in their names; each appears once, verbs and names sorted. */
function merged(rules: readonly PolicyRule[]): PolicyRule[] {
  const byKind = new Map<string, PolicyRule>();
  for (const rule of rules) {
    const key = JSON.stringify([rule.apiGroups, rule.resources, rule.resourceNames === undefined, rule.verbs]);
    const before = byKind.get(key);
    if (rule.resourceNames === undefined) byKind.set(key, rule);
    else {
      const resourceNames = [...new Set([...(before?.resourceNames ?? []), ...rule.resourceNames])].sort();
      byKind.set(key, { ...rule, resourceNames });
    }
  }
  return [...byKind.values()];
}

function grant(namespace: string, rules: readonly PolicyRule[], options: RbacOptions): KubeObject[] {
  const { serviceAccount } = options;
  const everywhere = namespace === EVERYWHERE;
  // A namespace has no dot: no two agents have the same name.
  const name = `${options.name}.${serviceAccount.namespace}`;
  const kind = everywhere ? 'ClusterRole' : 'Role';
  const labels = agentLabels(serviceAccount);
  const metadata = everywhere ? { name, labels } : { name, namespace, labels };
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  return [
    { apiVersion, kind, metadata, rules },
    {
      apiVersion,
      kind: `${kind}Binding`,
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name },
      subjects: [{ kind: 'ServiceAccount', ...serviceAccount }],
    },
  ];
}

/** Whose rights these are: `<namespace>.<account>`, or the namespace alone where both are too long for a label. */
export function agentLabels({ namespace, name }: RbacOptions['serviceAccount']): Readonly<Record<string, string>> {
  const whole = `${namespace}.${name}`;
  return { 'app.kubernetes.io/name': 'meshcert', [AGENT_LABEL]: whole.length <= 63 ? whole : namespace };
}
