import { createHash } from 'node:crypto';
import { type KubeObject, keyOf, refOf } from '../../../core/object.ts';
import { fields, text } from '../../../mesh/kube-object.ts';
import type { GatewayInput } from '../../input.ts';
import type { ExpectedLoad, Loaded } from '../../loading.ts';
import { decodeData } from '../../secret-data.ts';
import type { GatewayApiConfig } from '../spec/config.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';

/** What statuses and proxies must show. */
export interface ExpectedPublication extends ExpectedLoad {
  readonly certificate: GatewayInput<GatewayApiConfig>;
  /** `keyOf` of our policies. */
  readonly policies: readonly string[];
  /** Backends present the certificate: every Gateway of Envoy Gateway that leads to one counts. */
  readonly byBackends: boolean;
  /** How Envoy Gateway names the pair. */
  readonly pairName: string;
  /** The namespace of each bundle, by the names that Envoy Gateway gives it: one for each policy. */
  readonly bundleNames: ReadonlyMap<string, string>;
  /** The certificates of each, by the name that Envoy Gateway gives it; `comparable`. */
  readonly certificates: ReadonlyMap<string, string>;
}

/** The reasons of the condition Live; docs/runbook.md has an entry for each. */
export const LIVE_REASONS = [
  ...(['ProxyLoaded', 'ProxyOutdated'] as const),
  ...(['StatusAccepted', 'StatusRefused', 'StatusOutdated', 'StatusAbsent'] as const),
] as const;

export interface SeenPublication extends Loaded {
  readonly reason: (typeof LIVE_REASONS)[number];
  /** For people. */
  readonly why: string;
  /** Namespaces whose bundle a proxy has not loaded. */
  readonly outdated: readonly string[];
}

/** Two texts are the same certificates if they differ in white space alone. */
export const comparable = (pem: string): string => pem.replace(/\s+/g, '');

/** Undefined while no policy is published. */
export function expectedPublication(
  certificate: GatewayInput<GatewayApiConfig>,
  desired: readonly { readonly object: KubeObject }[],
): ExpectedPublication | undefined {
  const { meta, spec, config } = certificate;
  const objects = desired.map(({ object }) => object);
  const policies = objects.filter(({ kind }) => kind === KINDS.policies.kind);
  if (policies.length === 0) return undefined;
  const pairName = `${meta.namespace}/${spec.secretName}`;
  const pair = objects.find(({ kind, metadata }) => kind === 'Secret' && metadata.name === spec.secretName);
  const chain = (pair && decodeData(pair)['tls.crt']) ?? '';
  const bundles = new Map(
    objects
      .filter(
        ({ kind, metadata }) => kind === CORE_RESOURCES.configMaps.kind && metadata.name === config.caConfigMapName,
      )
      .map(({ metadata, data }) => [metadata.namespace ?? '', text(fields(data)['ca.crt']) ?? '']),
  );
  const bundleNames = new Map(
    policies.map(({ metadata: { name, namespace = '' } }) => [`${name}/${namespace}-ca`, namespace]),
  );
  const certificates = new Map([
    [pairName, comparable(chain)],
    ...[...bundleNames].map(([name, namespace]) => [name, comparable(bundles.get(namespace) ?? '')] as const),
  ]);
  const digest = createHash('sha256')
    .update(JSON.stringify([policies, [...certificates]]))
    .digest('hex');
  return {
    digest,
    certificate,
    pairName,
    bundleNames,
    certificates,
    byBackends: config.clientCertificate === 'Backend',
    policies: policies.map((policy) => keyOf(refOf(policy))),
  };
}
