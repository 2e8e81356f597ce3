import type { MeshCertificate } from '../../../config/schema/mesh-certificate.ts';
import { describe, OWNER_LABEL, refOf } from '../../../core/object.ts';
import type { Adapter } from '../../../mesh/adapter.ts';
import { fields, type KubeObject } from '../../../mesh/kube-object.ts';
import type { ClusterSnapshot } from '../../diagnosis.ts';
import type { ObservedObjects } from '../../gateway.ts';
import type { RouteInput, Scope } from '../../input.ts';
import { ownerLabel } from '../../owner.ts';
import { gatewayApiRoutes } from '../routes/routes.ts';
import {
  backendPlaces,
  type GatewayApiConfig,
  gatewayApiFields,
  gatewayPlaces,
  policyPlaces,
  servicePlaces,
} from '../spec/config.ts';
import type { GatewayApiCheck } from './check.ts';
import { type GatewayApiWorld, nameOf } from './world.ts';

/** A MeshCertificate for this kind of gateway, which an agent will act on. */
interface PromisedPolicies {
  readonly object: KubeObject;
  readonly input: RouteInput<GatewayApiConfig>;
  readonly adapter: Adapter;
}

function promisesOf({ all, snapshot }: GatewayApiWorld): readonly PromisedPolicies[] {
  return all('MeshCertificate').flatMap((object) => {
    const certificate = snapshot.parse?.(object);
    const config = certificate?.spec.gateways[gatewayApiFields.kind] as GatewayApiConfig | undefined;
    const adapter = snapshot.adapters.find(({ mesh }) => mesh === certificate?.spec.mesh.name);
    if (!certificate || !config || !adapter) return [];
    return [{ object, input: inputOf(object, certificate, config, adapter), adapter }];
  });
}

function inputOf(
  { metadata }: KubeObject,
  { spec }: MeshCertificate,
  config: GatewayApiConfig,
  adapter: Adapter,
): RouteInput<GatewayApiConfig> {
  const { name, namespace = '', uid } = metadata;
  const tls = adapter.tlsFor?.(spec.mesh.config) ?? adapter.tls;
  return { meta: { name, namespace, uid }, spec, config, mesh: { ...adapter, tls } };
}

/** The Secrets that an agent will write, `namespace/name`. */
export const promisedSecrets = (world: GatewayApiWorld): ReadonlySet<string> =>
  new Set(promisesOf(world).map(({ input: { meta, spec } }) => `${meta.namespace}/${spec.secretName}`));

/** The ConfigMaps that an agent will write, `namespace/name`. */
export const promisedBundles = (world: GatewayApiWorld): ReadonlySet<string> =>
  new Set(
    promisesOf(world).flatMap(({ input: { config, meta } }) =>
      policyPlaces(config, meta.namespace).map((namespace) => nameOf({ namespace, name: config.caConfigMapName })),
    ),
  );

/** What the agent would observe. Kinds and namespaces that were not read are hidden. */
function observedBy({ all, known, snapshot }: GatewayApiWorld, input: RouteInput<GatewayApiConfig>): ObservedObjects {
  const inScopes = (scopes: readonly Scope[]) =>
    scopes.flatMap(({ resource, namespace, name }) =>
      all(resource.kind).filter(
        ({ metadata }) =>
          (namespace === undefined || metadata.namespace === namespace || !resource.namespaced) &&
          (name === undefined || metadata.name === name),
      ),
    );
  const unique = (objects: readonly KubeObject[]) => [...new Set(objects)];
  const scopes = gatewayApiRoutes.scopes(input);
  const label = ownerLabel(input.meta);
  const own = unique(inScopes(scopes.own)).filter(({ metadata }) => metadata.labels?.[OWNER_LABEL] === label);
  const routes = unique(inScopes(scopes.routes)).filter(gatewayApiRoutes.concern(input, own));
  const behind = unique(inScopes(gatewayApiRoutes.behind(input, { routes, own })));
  return {
    routes,
    own,
    behind: (kind) => behind.filter((object) => object.kind === kind),
    unseen: new Map(),
    hidden: (kind, namespace) =>
      known(kind) && wasRead(snapshot, namespace) ? undefined : 'they are not among these objects',
    unserved: new Set(),
  };
}

/** What is in no namespace was read in any case. */
const wasRead = ({ namespaces }: ClusterSnapshot, namespace: string | undefined): boolean =>
  namespaces === undefined || namespace === undefined || namespaces.includes(namespace);

/** What cannot be judged without the mesh, or without what was read. */
const UNDECIDED = ['ERR_TARGET_UNSEEN', 'ERR_TARGET_NO_PEER'];

/** The next step of a refusal follows its last semicolon; that of an adapter from elsewhere may have none. */
function causeAndFix(message: string): readonly [cause: string, fix: string] {
  const end = message.lastIndexOf('; ');
  return end < 0 ? [message, 'correct what the message names'] : [message.slice(0, end), message.slice(end + 2)];
}

export const promiseChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC5101',
    severity: 'error',
    title: 'A selected Gateway or Service cannot use the certificate',
    *run(world) {
      for (const { object, input } of promisesOf(world)) {
        if (fields(object.spec).paused === true) continue;
        for (const { outcome, route } of gatewayApiRoutes.judge(input, observedBy(world, input)).verdicts) {
          if (!('code' in outcome) || UNDECIDED.includes(outcome.code)) continue;
          const [cause, fix] = causeAndFix(outcome.message);
          yield { object: route, message: `${describe(refOf(object))}: ${cause} (${outcome.code})`, fix };
        }
      }
    },
  },
  {
    code: 'MC5102',
    severity: 'warning',
    title: 'The MeshCertificate selects no Gateway or no Service',
    *run(world) {
      for (const { object, input } of promisesOf(world)) {
        const { routes } = observedBy(world, input);
        const { config, meta } = input;
        for (const [kind, selector, places] of [
          ['Gateway', config.gateways?.selector, gatewayPlaces(config, meta.namespace)],
          ['Service', config.services?.selector, servicePlaces(config, meta.namespace)],
          ['Backend', config.backends?.selector, backendPlaces(config, meta.namespace)],
        ] as const) {
          if (!selector || !world.known(kind) || routes.some((one) => one.kind === kind)) continue;
          if (!places.every((place) => wasRead(world.snapshot, place))) continue;
          const labels = Object.entries(selector.matchLabels).map(([key, value]) => `${key}=${value}`);
          yield {
            object,
            message: `no ${kind} in its namespaces has the label ${labels.join(',')}: ${kind === 'Gateway' ? 'nothing presents the certificate, and no policy is written' : 'no upstream is verified'}`,
            fix: `label one, or correct spec.gatewayApi.${kind.toLowerCase()}s`,
          };
        }
      }
    },
  },
];
