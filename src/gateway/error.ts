import { CodedError } from '../pki/der/error.ts';

export const GATEWAY_ERROR_CODES = ['ERR_GATEWAY_NAME', 'ERR_GATEWAY_EMPTY_BUNDLE', 'ERR_GATEWAY_EMPTY_CHAIN'] as const;

export type GatewayErrorCode = (typeof GATEWAY_ERROR_CODES)[number];

/** The configuration cannot be written in a way that the gateway reads correctly. */
export class GatewayError extends CodedError<GatewayErrorCode> {
  override readonly name = 'GatewayError';
}
