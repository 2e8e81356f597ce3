/** `spec.service` of a Mapping, taken apart as Emissary does. */
export interface ServiceAddress {
  readonly scheme: 'http' | 'https' | undefined;
  /** Lower case; `unknown` when there is none. */
  readonly host: string;
  /** Absent: 443 where TLS is originated, else 80. */
  readonly port: number | undefined;
  /** Whether there is a host and, where one is given, a valid port. */
  readonly routable: boolean;
  /** What Emissary posts about it. */
  readonly errors: readonly string[];
}

/** With `allowScheme` false (TCPMapping), a scheme is stripped and has no say. */
export function parseService(service: string, allowScheme = true): ServiceAddress {
  const errors: string[] = [];
  const [, scheme, rest = ''] = /^(?:([a-z][a-z0-9+.-]*):\/\/)?(.*)$/is.exec(service) ?? [];
  const known = scheme && allowScheme && /^https?$/i.test(scheme) ? scheme.toLowerCase() : undefined;
  if (scheme && !known) errors.push(`service ${service} has the scheme ${scheme}, which is ignored`);
  const [authority = ''] = rest.split(/[/?#;]/, 1);
  if (authority !== rest) errors.push(`service ${service} has more than a host and a port; the rest is ignored`);
  const [, host = '', digits] = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(authority) ?? [];
  const port = digits === undefined || digits === '' ? undefined : Number(digits);
  const validPort = port === undefined || (Number.isInteger(port) && port >= 0 && port <= 65_535);
  if (!validPort) errors.push(`service ${service} has no valid port and its cluster is ignored`);
  if (host === '') errors.push(`service ${service} has no host name and is ignored`);
  return {
    scheme: known === 'http' || known === 'https' ? known : undefined,
    host: host === '' ? 'unknown' : host.replace(/^\[|\]$/g, '').toLowerCase(),
    port: validPort && port !== 0 ? port : undefined,
    routable: validPort && host !== '',
    errors,
  };
}
