import type { Channel } from '../../src/grpc/channel.ts';
import type { DuplexStream } from '../../src/grpc/duplex.ts';
import { grpcStatus } from '../../src/grpc/error.ts';
import type { AnyMessage } from './sds-secret.ts';

const METHOD = 'envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets';
const TYPE_URL = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

export interface Subscription {
  readonly names: readonly string[];
  readonly nodeId: string;
  /** Requests plain roots from SPIRE; pilot-agent ignores it. */
  readonly plainRoots: boolean;
}

/** One answer: whatever changed, never the whole state. */
export interface Push {
  readonly version: string;
  readonly resources: readonly AnyMessage[];
  /** Acknowledges the push. */
  accept(): void;
  /** Rejects a push that can never be used; the server sends nothing then until the next rotation. */
  refuse(reason: string): void;
}

interface Response {
  readonly version_info: string;
  readonly resources: readonly AnyMessage[];
  readonly nonce: string;
}

/**
 * One subscription, state of the world. Each push must be accepted or refused before the next is read. The first
 * request never carries an error_detail: pilot-agent would crash.
 */
export async function* subscribe(
  channel: Channel,
  subscription: Subscription,
  signal: AbortSignal,
): AsyncGenerator<Push, void, undefined> {
  const stream: DuplexStream<object, Response> = channel.stream({ method: METHOD, signal });
  const request = { resource_names: subscription.names, type_url: TYPE_URL };
  stream.write({ ...request, node: nodeOf(subscription) });
  let version = '';
  for await (const { version_info, resources, nonce } of stream) {
    yield {
      version: version_info,
      resources,
      accept() {
        version = version_info;
        stream.write({ ...request, version_info: version, response_nonce: nonce });
      },
      refuse(reason) {
        const error_detail = { code: grpcStatus.INVALID_ARGUMENT, message: reason };
        stream.write({ ...request, version_info: version, response_nonce: nonce, error_detail });
      },
    };
  }
}

function nodeOf({ nodeId, plainRoots }: Subscription): object {
  // Well-known types are in camelCase even if all other names keep their case.
  const metadata = plainRoots ? { fields: { disable_spiffe_cert_validation: { boolValue: true } } } : undefined;
  return { id: nodeId, cluster: 'meshcert', user_agent_name: 'meshcert', ...(metadata ? { metadata } : {}) };
}
