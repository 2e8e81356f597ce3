import { fields, type KubeObject } from '../../../mesh/kube-object.ts';
import type { Onboarding, OnboardingWording } from '../../onboarding.ts';
import { type ContextSpec, contextSpec, mappingSpec } from '../reading/kinds.ts';
import { setsTls } from '../routes/mapping.ts';
import type { EmissaryConfig } from '../spec/config.ts';
import { EMISSARY_RESOURCES as KINDS, MAPPING_FIELD_MANAGER } from '../spec/resources.ts';
import { type EmissaryInstallation, installationsOf } from './installations.ts';
import { extendedSpec, selectorLabels, specFor } from './membership.ts';
import { explicitService, namespacesBehindMappings, upstreamsOf } from './upstreams.ts';

const wording: OnboardingWording = {
  absent: 'no Deployment or DaemonSet runs an image of Emissary-ingress or Edge Stack',
  route: 'Mapping',
  routes: 'Mappings',
  selector: 'mappings.selector',
  namespaces: 'mappings.namespaces',
  blocked: 'whose spec.tls another client set',
  cost: 'Emissary changes the route before Envoy has prepared the new cluster: one to five requests for each Mapping can be answered with 503, in a measurement 2 of 3,958. Let clients repeat requests, or choose a quiet hour.',
  released: 'no longer has the spec.tls of the agent',
  inUse: (list) =>
    `spec.tls of ${list} still names the TLSContext, and another client set it; without the TLSContext the gateway could use plaintext. Remove spec.tls there and run this again; until then, the certificate is renewed`,
};

const NOTHING: Partial<ContextSpec> = {};

/** Whether one gateway reads both, by their `ambassador_id`. */
const haveGateway = (some: unknown, others: unknown): boolean => {
  const ids = (value: unknown) => [value ?? []].flat().map(String);
  const [one, other] = [some, others].map((value) => (ids(value).length === 0 ? ['default'] : ids(value)));
  return [one, other].some((list) => list?.includes('_automatic_')) || one?.some((id) => other?.includes(id)) === true;
};

export const emissaryOnboarding: Onboarding<EmissaryConfig, EmissaryInstallation> = {
  wording,
  routes: [KINDS.mappings, KINDS.tcpMappings],
  reads: [KINDS.modules],
  configMaps: [],
  own: ({ namespace }) => [{ resource: KINDS.tlsContexts, namespace }],

  installations: installationsOf,
  settings({ env }) {
    const watched = env.singleNamespace ? `watches only namespace ${env.namespace}` : 'watches all namespaces';
    const selector = env.labelSelector === undefined ? [] : [`objects with ${env.labelSelector}`];
    return [`AMBASSADOR_ID ${env.ambassadorId}`, watched, ...selector];
  },
  notes({ env: { labelSelector, istioSecretDir } }) {
    const expressed = Object.keys(selectorLabels(labelSelector)).length;
    const terms = (labelSelector ?? '').split(',').filter(Boolean).length;
    return [
      ...(expressed < terms
        ? [
            `AMBASSADOR_LABEL_SELECTOR ${labelSelector} has more than equality requirements: add matching labels with --set labels.KEY=VALUE`,
          ]
        : []),
      ...(istioSecretDir
        ? ['AMBASSADOR_ISTIO_SECRET_DIR is set: its files are no longer needed once Mappings have moved']
        : []),
    ];
  },

  namespacesBehind: namespacesBehindMappings,
  upstreams: upstreamsOf,

  specFor,
  extended: extendedSpec,
  named: { tlsContext: {} },
  selector: ({ mappings }) => mappings?.selector.matchLabels,
  preparation: (mapping) => ({ service: explicitService(mapping) }),
  objectsFirst: true,
  settleMs: 10_000,
  client(_config, context, id) {
    const { alpnProtocols, minTlsVersion, maxTlsVersion } = context ? contextSpec(context) : NOTHING;
    return {
      ...(id === undefined ? {} : { sni: id }),
      ...(alpnProtocols === undefined ? {} : { alpnProtocols }),
      ...(minTlsVersion === undefined ? {} : { minTlsVersion }),
      ...(maxTlsVersion === undefined ? {} : { maxTlsVersion }),
    };
  },

  uses(mapping, contexts, all) {
    const { tls, ambassadorId } = mappingSpec(mapping);
    const isNamed = (one: KubeObject) =>
      one.kind === KINDS.tlsContexts.kind &&
      one.metadata.name === tls &&
      haveGateway(contextSpec(one).ambassadorId, ambassadorId);
    const named = contexts.filter(isNamed);
    const isBeside = ({ metadata }: KubeObject) => metadata.namespace === mapping.metadata.namespace;
    if (named.length === 0 || named.some(isBeside)) return named.length > 0;
    // Names are global in one gateway. The gateway of another namespace may have a context of that name itself.
    return !all.some((one) => isNamed(one) && isBeside(one));
  },
  released(mapping) {
    if (!setsTls(mapping)) return undefined;
    const { tls: _, ...spec } = fields(mapping.spec);
    return { route: { ...mapping, spec }, fieldManager: MAPPING_FIELD_MANAGER };
  },
  deselected: ({ mappings }) => (mappings === undefined ? undefined : { mappings: null }),
};
