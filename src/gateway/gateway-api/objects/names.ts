import { createHash } from 'node:crypto';
import type { ObjectRef } from '../../../core/object.ts';
import type { GatewayInput } from '../../input.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES } from '../spec/resources.ts';
import type { PolicyTarget, ServicePort } from '../spec/target.ts';

/** Names are at most this long, so that they also fit into a label. */
const LONGEST = 63;
const HASH_DIGITS = 8;

/** Joins the parts with hyphens. If that is ambiguous or too long, a hash of the parts is added. */
function joined(certificate: string, parts: readonly string[], ending = ''): string {
  const plain = [certificate, ...parts].join('-');
  if (!parts.some((part) => part.includes('-')) && plain.length + ending.length <= LONGEST) return plain + ending;
  const digest = createHash('sha256')
    .update([certificate, ...parts].join('/'))
    .digest('hex')
    .slice(0, HASH_DIGITS);
  const rest = LONGEST - HASH_DIGITS - 1 - ending.length;
  return `${plain.slice(0, rest).replace(/(?<![-.])[-.]+$/, '')}-${digest}${ending}`;
}

/** `<certificate>-<service>-<port>`, or `<certificate>-<backend>.backend`: no Service or port has a dot in its name. */
export function policyRef(
  { meta }: Pick<GatewayInput<unknown>, 'meta'>,
  { namespace, of, name, port }: Pick<PolicyTarget, 'namespace' | 'of' | 'name' | 'port'>,
): ObjectRef {
  const { apiVersion, kind } = GATEWAY_API_RESOURCES.policies;
  const own = of === 'Service' ? joined(meta.name, [name, port]) : joined(meta.name, [name], '.backend');
  return { apiVersion, kind, namespace, name: own };
}

export const configMapRef = (namespace: string, name: string): ObjectRef => {
  const { apiVersion, kind } = CORE_RESOURCES.configMaps;
  return { apiVersion, kind, namespace, name };
};

/** An EnvoyProxy that no Gateway uses. */
export function rereadRef({ meta }: Pick<GatewayInput<unknown>, 'meta'>): ObjectRef {
  const { apiVersion, kind } = GATEWAY_API_RESOURCES.envoyProxies;
  return { apiVersion, kind, namespace: meta.namespace, name: `${meta.name}-reread` };
}

/**
 * Lets Gateways of one other namespace name the Secret: `<certificate>-<namespace>.gateways`. One for each namespace,
 * since a ReferenceGrant has at most 16 entries, and so that one that is refused concerns no other.
 */
export function grantRef({ meta }: Pick<GatewayInput<unknown>, 'meta'>, from: string): ObjectRef {
  const { apiVersion, kind } = GATEWAY_API_RESOURCES.grants;
  return { apiVersion, kind, namespace: meta.namespace, name: joined(meta.name, [from], '.gateways') };
}

export const secretRef = ({ meta, spec }: Pick<GatewayInput<unknown>, 'meta' | 'spec'>): ObjectRef => ({
  apiVersion: 'v1',
  kind: 'Secret',
  namespace: meta.namespace,
  name: spec.secretName,
});

/** The name of a Backend that stands in for a port of a Service: `<service>-<namespace>-<port>`. */
export const standInName = ({ namespace, name, port }: ServicePort): string => joined(name, [namespace, String(port)]);
