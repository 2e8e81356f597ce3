import { emissary } from './gateway/emissary/gateway.ts';
import type { Gateway } from './gateway/gateway.ts';

/** The kinds of gateways that there are. A further one is a folder and a line here. */
export const gateways: readonly Gateway[] = [emissary as Gateway];
