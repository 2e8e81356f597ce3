/** `spec.service` of a Mapping or a TCPMapping, parsed as Emissary does. */
export interface ServiceAddress {
  readonly scheme: 'http' | 'https' | undefined;
  /** Lower case and qualified; `unknown` when there is none. */
  readonly host: string;
  /** Absent: 443 where TLS is originated, else 80. An invalid port counts as absent. */
  readonly port: number | undefined;
  /** The whole in Emissary's normal form, which names clusters. Malformed input stays as it was written. */
  readonly normalized: string;
  /** What Emissary reports or ignores. */
  readonly errors: readonly string[];
}

/** `namespace` qualifies a bare host name; absent: it is resolved as it is, from the gateway's own namespace. */
export function parseService(service: string, namespace?: string): ServiceAddress {
  const errors: string[] = [];
  const [, scheme, rest = ''] = /^(?:([a-z0-9+.-]*):\/\/|\/\/)?(.*)$/is.exec(service) ?? [];
  const known = /^https?$/i.test(scheme ?? '') ? scheme?.toLowerCase() : undefined;
  if (scheme && !known) errors.push(`service ${service} has the scheme ${scheme}, which is ignored`);
  const [authority = ''] = rest.split(/[/?#]/, 1);
  if (authority !== rest) errors.push(`service ${service} has more than a host and a port; the rest is ignored`);
  const [, bracketed, plain = '', digits] =
    /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/.exec(authority.slice(authority.lastIndexOf('@') + 1)) ?? [];
  const name = (bracketed ?? plain).toLowerCase();
  const port = digits === undefined || digits === '' ? 0 : /^\d+$/.test(digits) ? Number(digits) : Number.NaN;
  const validPort = port <= 65_535;
  if (!validPort) errors.push(`service ${service} has no valid port, and the default of 443 or 80 is used`);
  if (name === '') errors.push(`service ${service} has no host name, and requests go to a host called unknown`);
  const malformed = !validPort || name === '';
  // Malformed input that starts with // stays unchanged, and then has no host.
  const lost = malformed && service.startsWith('//');
  // Emissary cannot undo the brackets after it has rejected the port, and its whole configuration fails.
  if (!validPort && bracketed !== undefined && !lost) {
    errors.push(`service ${service} makes Emissary fail: no change of any object arrives until it is corrected`);
  }
  const bare = !/[.:]/.test(name) && name !== 'localhost';
  const host = bare && namespace !== undefined && !malformed ? `${name}.${namespace}` : name;
  const authorityOf = host.includes(':') ? `[${host}]` : host;
  return {
    scheme: known === 'http' || known === 'https' ? known : undefined,
    host: lost || host === '' ? 'unknown' : host,
    port: validPort && port !== 0 && !lost ? port : undefined,
    normalized: malformed
      ? service
      : `${scheme ? `${scheme.toLowerCase()}://` : ''}${authorityOf}${port === 0 ? '' : `:${port}`}`,
    errors,
  };
}
