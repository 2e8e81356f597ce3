export const GATEWAY_ERROR_CODES = ['ERR_GATEWAY_NAME', 'ERR_GATEWAY_EMPTY_BUNDLE', 'ERR_GATEWAY_EMPTY_CHAIN'] as const;

export type GatewayErrorCode = (typeof GATEWAY_ERROR_CODES)[number];

/** The configuration cannot be written in a way that the gateway reads correctly. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError';
  readonly code: GatewayErrorCode;

  constructor(code: GatewayErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
