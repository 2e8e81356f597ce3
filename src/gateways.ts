import { emissary } from './gateway/emissary/gateway.ts';
import type { Gateway } from './gateway/gateway.ts';
import { gatewayApi } from './gateway/gateway-api/gateway.ts';

/** All kinds of gateways. Another one is a folder and a line here. */
export const gateways: readonly Gateway[] = [emissary as Gateway, gatewayApi as Gateway];
