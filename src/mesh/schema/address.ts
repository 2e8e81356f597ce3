import { isIP, isIPv6 } from 'node:net';
import { z } from 'zod';

const HOST = String.raw`(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][-A-Za-z0-9_.]{0,252})`;
/** 1 to 65535 as a pattern, so that the API server refuses other ports too. */
const PORT = '([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])';

/** The API server estimates the cost of a rule over these by their length: a host of 253, a port, a scheme. */
const LONGEST = 300;

const HOST_PORT = new RegExp(`^${HOST}:${PORT}$`);
const HTTP_OR_SOCKET = new RegExp(String.raw`^(https?://${HOST}(:${PORT})?/?|unix:///\S+)$`);

/**
 * `host:port` in configuration, with an IPv6 address in brackets and a port of 1 to 65535.
 *
 * @example z.strictObject({ address: hostPort('web.shop:443') })
 */
export function hostPort(example: string) {
  return z
    .string()
    .max(LONGEST)
    .regex(HOST_PORT, { error: `expected host:port with a port of 1 to 65535, such as "${example}"`, abort: true })
    .refine((text) => !text.startsWith('[') || isIPv6(splitAddress(text).host), 'has no IPv6 address in its brackets');
}

/** `http://host:port`, `https://host:port` or `unix:///path` in configuration. */
export function httpOrSocket() {
  return z
    .string()
    .max(LONGEST)
    .regex(HTTP_OR_SOCKET, {
      error: 'expected http://host:port or https://host:port with a port of 1 to 65535, or unix:///path',
      abort: true,
    })
    .refine((text) => URL.canParse(text), 'is not a URL: the host is neither a name nor an IP address');
}

/** `[::1]:443` → `::1` and 443. For addresses that `hostPort` has accepted; for others the port may be NaN. */
export function splitAddress(address: string): { host: string; port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
}

/** Whether `host:port` never leaves this machine. */
export function isLoopback(address: string): boolean {
  const host = splitAddress(address).host.toLowerCase();
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
