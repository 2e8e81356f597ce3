import { refOf } from '../../../core/object.ts';
import type { LiveCondition, Loading } from '../../loading.ts';
import { REVISION_ANNOTATION, revisionOf } from '../objects/revision.ts';
import { type GatewayApiConfig, gatewayPlaces, policyPlaces, routePlaces, scopesIn } from '../spec/config.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import { type ExpectedPublication, expectedPublication, LIVE_REASONS, type SeenPublication } from './expected.ts';
import { judgeSecrets, secretsRequest } from './secrets.ts';
import { judgeStatuses } from './statuses.ts';

/** Different from the field manager of publications: a nudge must not look like a write of a publication. */
const NUDGE_FIELD_MANAGER = 'meshcert-nudge';

/** By the status of policies and Gateways, and by the secrets of a proxy if its admin interface can be asked. */
export const gatewayApiLoading: Loading<GatewayApiConfig, ExpectedPublication, SeenPublication> = {
  expected: expectedPublication,
  answers: { requests: secretsRequest, judge: judgeSecrets },
  statuses: {
    scopes({ meta: { namespace: own }, config }) {
      return [
        { resource: KINDS.classes },
        ...scopesIn([own, ...gatewayPlaces(config, own)], { resource: KINDS.gateways }),
        { resource: KINDS.envoyProxies, namespace: own },
        ...scopesIn(policyPlaces(config, own), { resource: KINDS.policies }),
        // They say which policies are used: the others have no status.
        ...scopesIn(policyPlaces(config, own), { resource: CORE_RESOURCES.services }),
        ...[KINDS.httpRoutes, KINDS.grpcRoutes].flatMap((resource) => scopesIn(routePlaces(config, own), { resource })),
      ];
    },
    judge: judgeStatuses,
  },
  condition,
  reasons: LIVE_REASONS,
  // Envoy Gateway does not send a bundle again that a proxy refused together with a broken Secret of somebody else's,
  // not even when the same bytes are written; other bytes do.
  nudge(desired, _, __, { outdated }) {
    return desired
      .map(({ object }) => object)
      .filter(
        ({ kind, metadata }) => kind === CORE_RESOURCES.configMaps.kind && outdated.includes(metadata.namespace ?? ''),
      )
      .map((bundle) => ({
        ref: refOf(bundle),
        patch: { metadata: { annotations: { [REVISION_ANNOTATION]: String(revisionOf(bundle) + 1) } } },
        fieldManager: NUDGE_FIELD_MANAGER,
      }));
  },
};

function condition(found: SeenPublication | { readonly failure: string }): LiveCondition {
  if ('failure' in found) return { status: 'Unknown', reason: 'StatusAbsent', message: found.failure };
  const { arrival, reason, why } = found;
  if (arrival === 'live') return { status: 'True', reason, message: `${why}.` };
  if (arrival !== 'read') return { status: 'False', reason, message: `${why}.` };
  const message = `${why}. A status does not show whether the proxies use the certificate; only a request does.`;
  return { status: 'Unknown', reason, message };
}
