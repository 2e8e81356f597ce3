import type { Adapter, Need, TokenRequest } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import { readClaims } from '../mesh/input.ts';
import type { MeshCertificate } from './schema/mesh-certificate.ts';
import type { Issue, Validation } from './validate.ts';

/** No restriction. An absent list is a type error, and not a permission. */
export const ANY: unique symbol = Symbol('any');

/** What is allowed of one kind; an empty list allows nothing. */
export type Allowed = readonly string[] | typeof ANY;

/** What MeshCertificates may make the agent do. */
export interface AllowList {
  /** `NAMESPACE/NAME` of accounts to mint tokens for. */
  readonly serviceAccounts: Allowed;
  /** Audiences of minted tokens. */
  readonly audiences: Allowed;
  /** `HOST`, `HOST:PORT` or `unix:/PATH` to dial, `file:/PATH` to read certificates from. */
  readonly addresses: Allowed;
}

/** For MeshCertificates that the operator of the agent wrote. */
export const ALLOW_ANY: AllowList = { serviceAccounts: ANY, audiences: ANY, addresses: ANY };

/** Whether a list names this value. `ANY` names nothing. */
const isNamed = (allowed: Allowed, value: string): boolean => allowed !== ANY && allowed.includes(value);

const FLAGS = {
  serviceAccounts: { what: 'ServiceAccount', flag: '--allow-service-account' },
  audiences: { what: 'token audience', flag: '--allow-audience' },
  addresses: { what: 'address', flag: '--allow-address' },
} as const;

/** A validator that also refuses, with the code ERR_NOT_ALLOWED, what the agent's allow-lists do not contain. */
export function allowing(
  validate: (object: unknown) => Validation,
  adapters: readonly Adapter[],
  allow: AllowList,
): (object: unknown) => Validation {
  return (object) => {
    const result = validate(object);
    if (!result.ok) return result;
    const issues = refusedNeeds(needsOf(result.value, adapters), allow);
    return issues.length === 0 ? result : { ok: false, issues, code: 'ERR_NOT_ALLOWED' };
  };
}

/** Why the agent refuses what a MeshCertificate needs; empty when it is allowed. */
export function refusedNeeds(needs: readonly Need[], allow: AllowList): Issue[] {
  return needs.flatMap((need) => {
    const refusals =
      need.kind === 'token'
        ? [refusedAccount(need, allow), refusedAudience(need.audience, allow)]
        : need.kind === 'address'
          ? [refusedAddress(need.address, allow)]
          : [];
    const path = ['spec', ...fieldPath('field' in need ? need.field : '')];
    return refusals.flatMap((message) => (message === undefined ? [] : [{ path, message }]));
  });
}

/** The flags of an agent that allow exactly what these MeshCertificates need. */
export function allowFlags(certificates: readonly MeshCertificate[], adapters: readonly Adapter[]): readonly string[] {
  const flags = certificates
    .flatMap((certificate) => needsOf(certificate, adapters))
    .flatMap((need) => {
      if (need.kind === 'address') return [`${FLAGS.addresses.flag}=${need.address}`];
      if (need.kind !== 'token') return [];
      const account = `${FLAGS.serviceAccounts.flag}=${need.namespace}/${need.name}`;
      return [account, `${FLAGS.audiences.flag}=${need.audience}`];
    });
  return [...new Set(flags)].sort();
}

/** Why this token is not made or read; undefined when it may be. A token from a file is the agent's own. */
function refusedToken(request: TokenRequest, allow: AllowList): string | undefined {
  const { serviceAccount, audience, destinations } = request;
  const account = serviceAccount && (refusedAccount(serviceAccount, allow) ?? refusedAudience(audience, allow));
  return account ?? destinations.map(({ address }) => refusedAddress(address, allow)).find((one) => one !== undefined);
}

/**
 * Throws for a token that may not be used, or that somebody on its way could read; it is then neither made nor read.
 */
export function requireAllowed(request: TokenRequest, allow: AllowList): void {
  const exposed = request.destinations.find(({ secure }) => !secure);
  if (exposed) {
    throw new MeshError(
      'ERR_TOKEN_EXPOSED',
      `a ServiceAccount token would travel to ${exposed.address} in plaintext; turn on TLS there and configure it here, or use a unix socket or a loopback address`,
      { retry: 'never' },
    );
  }
  const refused = refusedToken(request, allow);
  if (refused !== undefined) throw new MeshError('ERR_NOT_ALLOWED', refused, { retry: 'never' });
}

/** Whether an audience of this token is allowed by name. */
export const allowsAudience = (token: string, { audiences }: AllowList): boolean =>
  readClaims(token)?.audiences.some((one) => isNamed(audiences, one)) ?? false;

function refusedAccount({ namespace, name }: { namespace: string; name: string }, { serviceAccounts }: AllowList) {
  const account = `${namespace}/${name}`;
  if (serviceAccounts === ANY || serviceAccounts.some((entry) => matches(entry, account))) return undefined;
  return refusal('serviceAccounts', account, serviceAccounts);
}

function refusedAudience(audience: string, { audiences }: AllowList): string | undefined {
  if (audiences === ANY || audiences.includes(audience)) return undefined;
  return refusal('audiences', audience, audiences);
}

/** Why this address is not dialled; undefined when it may be. */
export function refusedAddress(address: string, { addresses }: AllowList): string | undefined {
  if (addresses === ANY || addresses.some((entry) => matchesAddress(entry, address))) return undefined;
  return refusal('addresses', address, addresses);
}

function refusal(kind: keyof AllowList, value: string, allowed: readonly string[]): string {
  const { what, flag } = FLAGS[kind];
  const known = allowed.length === 0 ? 'none is allowed' : `allowed: ${allowed.join(', ')}`;
  return `the agent does not allow ${what} ${value} (${known}); to allow it, start the agent with ${flag}=${value} (chart value allow.${kind})`;
}

/** An entry without a port allows every port of its host. */
function matchesAddress(entry: string, address: string): boolean {
  if (entry === '*') return true;
  if ([entry, address].some((one) => /^(unix|file):/.test(one))) return matches(entry, address);
  const [wanted, given] = [splitEntry(entry), splitEntry(address)];
  return matches(wanted.host, given.host) && (wanted.port === undefined || wanted.port === given.port);
}

/** `[::1]:443` → `::1` and `443`; the port may be missing. */
function splitEntry(text: string): { readonly host: string; readonly port: string | undefined } {
  const port = /:(\d+)$/.exec(text)?.[1];
  const host = port === undefined ? text : text.slice(0, -port.length - 1);
  return { host: host.replace(/^\[|\]$/g, '').toLowerCase(), port };
}

const STARLESS = new Set('./:');

/** `*` matches one or more characters other than `.`, `/` and `:`. */
function matches(entry: string, value: string): boolean {
  const [start = '', ...parts] = entry.split('*');
  if (!value.startsWith(start)) return false;
  // The places in the value at which the parts so far may end.
  let ends = [start.length];
  for (const part of parts) {
    const next = new Set<number>();
    let reached = 0;
    for (const end of ends) {
      for (let at = Math.max(end, reached); at < value.length && !STARLESS.has(value.charAt(at)); at++) {
        reached = at + 1;
        if (value.startsWith(part, at + 1)) next.add(at + 1 + part.length);
      }
    }
    ends = [...next].sort((a, b) => a - b);
  }
  return ends.includes(value.length);
}

const fieldPath = (field: string): (string | number)[] =>
  field.split(/[.[\]]+/).flatMap((part) => (part === '' ? [] : [/^\d+$/.test(part) ? Number(part) : part]));

/** What one MeshCertificate makes the agent read, mint and dial. */
export function needsOf({ metadata, spec }: MeshCertificate, adapters: readonly Adapter[]): readonly Need[] {
  const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
  if (!adapter) throw new TypeError(`no adapter for mesh ${spec.mesh.name}`);
  const needs = adapter.needs(spec.mesh.config, {
    namespace: metadata.namespace ?? 'default',
    crl: spec.crlSecretName !== undefined,
  });
  return spec.probe ? [...needs, { kind: 'address', address: spec.probe.address, field: 'probe.address' }] : needs;
}
