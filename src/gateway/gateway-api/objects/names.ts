import { createHash } from 'node:crypto';
import type { ObjectRef } from '../../../core/object.ts';
import type { GatewayInput } from '../../input.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES } from '../spec/resources.ts';

/** Names are at most this long, so that they also fit into a label. */
const LONGEST = 63;
const HASH_DIGITS = 8;

/**
 * `<certificate>-<service>-<port>`. If that is ambiguous or too long, a hash of the three names is added.
 */
function policyName(certificate: string, service: string, port: string): string {
  const plain = `${certificate}-${service}-${port}`;
  if (!service.includes('-') && !port.includes('-') && plain.length <= LONGEST) return plain;
  const digest = createHash('sha256').update([certificate, service, port].join('/')).digest('hex');
  return `${plain.slice(0, LONGEST - HASH_DIGITS - 1).replace(/-+$/, '')}-${digest.slice(0, HASH_DIGITS)}`;
}

interface ServicePort {
  readonly namespace: string;
  readonly service: string;
  readonly port: string;
}

export function policyRef(
  { meta }: Pick<GatewayInput<unknown>, 'meta'>,
  { namespace, service, port }: ServicePort,
): ObjectRef {
  const { apiVersion, kind } = GATEWAY_API_RESOURCES.policies;
  return { apiVersion, kind, namespace, name: policyName(meta.name, service, port) };
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

export const secretRef = ({ meta, spec }: Pick<GatewayInput<unknown>, 'meta' | 'spec'>): ObjectRef => ({
  apiVersion: 'v1',
  kind: 'Secret',
  namespace: meta.namespace,
  name: spec.secretName,
});
