import type { Preflight } from '../../src/core/preflight.ts';

/** For suites on their own clock: OpenSSL in a handshake uses only the real time. */
export const anyPair: Preflight = async () => ({ ok: true });
