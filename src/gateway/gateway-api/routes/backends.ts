import { consentRefusal } from '../../../core/consent.ts';
import type { KubeObject } from '../../../core/object.ts';
import { fields, hasLabels, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { PeerName, TargetRefusal } from '../../../mesh/targeting.ts';
import type { RouteDestination, RouteVerdict } from '../../gateway.ts';
import { CORE_RESOURCES as CORE, EXTENSIONS, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import { clientVerdict, isBackend, isPresented, presents } from './client.ts';
import { aliasRefusal, givenPeers, identitiesOf, type NamedPort, type Peers, peersFrom } from './pods.ts';
import {
  behindServices,
  destinationOf,
  foreignPolicy,
  kept,
  type PolicyJudgement,
  type PolicySituation,
  policyVerdict,
  unseen,
  unservedKind,
  writtenFor,
} from './policies.ts';

/** What one Backend needs: the certificate in its own fields, and a policy. */
interface BackendJudgement {
  readonly client?: RouteVerdict | undefined;
  readonly policy?: PolicyJudgement | undefined;
}

/**
 * The Backends that are selected, or that use what is published. One that names the certificate and has no policy is
 * refused by Envoy Gateway: no request leads to plaintext. It is given the certificate only once its policy is known.
 */
export function judgeBackends(situation: PolicySituation, mayAdd: boolean): readonly BackendJudgement[] {
  const { config } = situation.input;
  const missing = situation.observed.unserved.has(KINDS.backends.kind) && config.backends;
  if (missing) return [{ client: undefinedKind() }];
  return situation.observed.routes.filter(isBackend).map((backend) => judgeBackend(backend, situation, mayAdd));
}

/** No object shows that Backends are wanted. */
function undefinedKind(): RouteVerdict {
  const { apiVersion, kind, plural } = KINDS.backends;
  const name = `${plural}.${EXTENSIONS}`;
  const route = { apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name } };
  const message = `the cluster does not serve ${apiVersion} ${kind}; install the CRDs of Envoy Gateway, and set extensionApis.enableBackend in its configuration`;
  return { route, service: '', selected: true, outcome: { code: 'ERR_GATEWAY_CRD_MISSING', message } };
}

function judgeBackend(backend: KubeObject, situation: PolicySituation, mayAdd: boolean): BackendJudgement {
  const { input, isUsed } = situation;
  const { backends, clientCertificate } = input.config;
  const { name, namespace = '' } = backend.metadata;
  const target = { of: 'Backend', namespace, name, port: '' } as const;
  const before = writtenFor(situation, target);
  const isPlace = clientCertificate === 'Backend';
  const isNaming = presents(backend, input);
  if (!backends || !hasLabels(backend, backends.selector.matchLabels)) {
    return {
      client: isNaming ? clientVerdict(backend, input, false) : undefined,
      policy: before && isUsed(target, undefined) ? kept(backend, before, undefined, situation) : undefined,
    };
  }
  const verdict = (found: TargetRefusal | readonly RouteDestination[]) =>
    policyVerdict(backend, target, undefined, situation, found);
  const client = isPlace || isNaming ? clientVerdict(backend, input, isPlace) : undefined;
  const peers = refusalOf(backend, situation) ?? foreignPolicy(situation, target) ?? peersOf(backend, situation);
  if ('code' in peers) {
    return { client: isNaming ? client : undefined, policy: { verdict: verdict(peers), target: before } };
  }
  const destinations = endpointsOf(backend).map(({ address, service }) => destinationOf(address, peers, service));
  if (client && 'code' in client.outcome) {
    return { client, policy: before && { verdict: verdict(destinations), target: before } };
  }
  const isReady = isPlace ? client !== undefined && isPresented(client) : mayAdd;
  const needed = before || isReady ? ({ kind: 'policy', ...target, ...peers } as const) : undefined;
  return { client, policy: { verdict: verdict(destinations), target: needed } };
}

/** Why nothing is written for a Backend. */
function refusalOf(backend: KubeObject, situation: PolicySituation): TargetRefusal | undefined {
  const { input, observed } = situation;
  const { namespace = '' } = backend.metadata;
  const { namespace: own } = input.meta;
  if (input.config.clientCertificate === 'Backend' && namespace !== own) {
    const message = `it is not in the namespace of the Secret, where Envoy Gateway requires it; create it in namespace ${own}, with a ReferenceGrant for the routes of others`;
    return { code: 'ERR_TARGET_NAMESPACE', message };
  }
  return (
    consentRefusal(backend, own) ?? unservedKind(observed.unserved) ?? unseen(situation, namespace, [KINDS.policies])
  );
}

/** Where an endpoint of a Backend leads to. */
interface BackendEndpoint {
  /** `host:port`, for people. */
  readonly address: string;
  readonly hostname: string | undefined;
  readonly port: number;
  /** The Service of that name. */
  readonly service?: { readonly namespace: string; readonly name: string } | undefined;
}

/** `<service>.<namespace>.svc`, and the domain of the cluster. */
const SERVICE_NAME = /^([^.]+)\.([^.]+)\.svc(\.|$)/;

export const endpointsOf = ({ spec }: KubeObject): readonly BackendEndpoint[] =>
  listOfFields(fields(spec).endpoints).map(({ fqdn, ip, unix, hostname: given }) => {
    const { hostname, port } = fields(fqdn);
    const address = text(fields(ip).address) ?? text(fields(unix).path);
    const host = text(hostname)?.replace(/\.$/, '');
    const [, name, namespace] = SERVICE_NAME.exec(host ?? '') ?? [];
    const number = Number(port ?? fields(ip).port ?? 0);
    return {
      address: `${host ?? address ?? ''}:${number}`,
      hostname: host ?? text(given),
      port: number,
      service: name && namespace ? { name, namespace } : undefined,
    };
  });

/** The identities of all pods behind all endpoints. */
function peersOf(backend: KubeObject, situation: PolicySituation): Peers | TargetRefusal {
  const { input, observed } = situation;
  const { name: own, namespace = '' } = backend.metadata;
  const title = `Backend ${namespace}/${own}`;
  const endpoints = endpointsOf(backend);
  const hostname = endpoints.find((one) => one.hostname !== undefined)?.hostname ?? `${own}.${namespace}`;
  const given = givenPeers(hostname, input.config);
  if (given) return given;
  const found: PeerName[] = [];
  for (const { address, service, port } of endpoints) {
    if (!service) {
      const message = `its endpoint ${address} is not the name of a Service (NAME.NAMESPACE.svc.cluster.local), so its identity is unknown; use that name, or set gatewayApi.subjectAltNames`;
      return { code: 'ERR_TARGET_NOT_IN_CLUSTER', message };
    }
    const hidden = unseen(situation, service.namespace, [CORE.services, CORE.pods, CORE.endpointSlices]);
    if (hidden) return hidden;
    const object = observed
      .behind(CORE.services.kind)
      .find(({ metadata }) => metadata.namespace === service.namespace && metadata.name === service.name);
    if (!object) return missing(service);
    const named = portOf(object, port);
    if ('code' in named) return named;
    const names = identitiesOf(object, named, behindServices(situation, service.namespace), input);
    if ('code' in names) return names;
    found.push(...names);
  }
  return peersFrom(found, hostname, title, input);
}

export const missing = ({ namespace, name }: { readonly namespace: string; readonly name: string }): TargetRefusal => ({
  code: 'ERR_TARGET_NO_SERVICE',
  message: `Service ${namespace}/${name} does not exist; create it, or correct the endpoint`,
});

/** The port of a Service by its number; pods behind a headless one are called at their own port. */
export function portOf(service: KubeObject, number: number): NamedPort | TargetRefusal {
  const { clusterIP, ports } = fields(service.spec);
  const title = `Service ${service.metadata.namespace}/${service.metadata.name}`;
  const alias = aliasRefusal(service, title);
  if (alias) return alias;
  const isHeadless = clusterIP === 'None';
  const all = listOfFields(ports);
  const found = all.find(({ port, targetPort }) => port === number || (isHeadless && targetPort === number));
  if (found) return { name: text(found.name) ?? '', port: number, targetPort: found.targetPort };
  if (isHeadless && all.length === 0) return { name: '', port: number, targetPort: number };
  const message = `${title} has no port ${number}; use a port of the Service`;
  return { code: 'ERR_TARGET_NO_PORT', message };
}
