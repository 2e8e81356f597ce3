import { type Certificate, parseCertificates } from '../../pki/certificate.ts';
import { PrivateKey } from '../../pki/key.ts';
import type { Expectation, Need, TlsDefaults, TokenField } from '../adapter.ts';
import type { Identity } from '../identity.ts';
import type { Fields } from '../kube-object.ts';

/** Of names that an adapter gives; none of a mesh is longer. */
const LONGEST_TEXT = 2048;

function fail(what: string): never {
  throw new TypeError(what);
}

function object(value: unknown, what: string): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Fields)
    : fail(`${what} is ${kindOf(value)}, not an object`);
}

function list(value: unknown, what: string): readonly unknown[] {
  return Array.isArray(value) ? value : fail(`${what} is ${kindOf(value)}, not an array`);
}

function text(value: unknown, what: string): string {
  if (typeof value !== 'string') fail(`${what} is ${kindOf(value)}, not a string`);
  return value.length > 0 && value.length <= LONGEST_TEXT ? value : fail(`${what} has ${value.length} characters`);
}

const optionalText = (value: unknown, what: string): string | undefined =>
  value === undefined ? undefined : text(value, what);

function oneOf<T extends string>(value: unknown, known: readonly T[], what: string): T {
  return known.find((one) => one === value) ?? fail(`${what} is not one of ${known.join(', ')}`);
}

/** `undefined`, `null`, `an array`, `a string`: never the value, which may be secret. */
function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/**
 * The identity as values of this program: certificates and keys of another copy of their classes, or of another
 * version, are read again from their PEM. Throws a TypeError that says what is missing.
 */
export function identityFrom(value: unknown): Identity {
  const { id, key, chain, roots } = object(value, 'the identity');
  const found = {
    id: text(id, 'its id'),
    key: keyFrom(key),
    chain: certificatesFrom(chain, 'its chain'),
    roots: certificatesFrom(roots, 'its roots'),
  };
  return found.chain.length > 0 ? found : fail('its chain is empty');
}

export function certificatesFrom(value: unknown, what: string): readonly Certificate[] {
  const blocks = list(value, what).map((one) => text(object(one, `a member of ${what}`).pem, `the pem in ${what}`));
  if (blocks.length === 0) return [];
  try {
    return parseCertificates(blocks.join('\n'));
  } catch (cause) {
    return fail(`${what} cannot be read: ${cause instanceof Error ? cause.message : 'not PEM'}`);
  }
}

function keyFrom(value: unknown): PrivateKey {
  const { toPem } = object(value, 'its key');
  if (typeof toPem !== 'function') fail('its key has no toPem()');
  const pem: unknown = toPem.call(value);
  if (typeof pem !== 'string') fail('its key has no PEM');
  return PrivateKey.fromPem(pem);
}

export function expectationFrom(value: unknown): Expectation {
  const { id, trustDomain, form } = object(value, 'what expect() returns');
  return {
    form: oneOf(form, ['spiffe', 'dns'], 'form'),
    id: optionalText(id, 'id'),
    trustDomain: optionalText(trustDomain, 'trustDomain'),
  };
}

export function needsFrom(value: unknown): readonly Need[] {
  return list(value, 'what needs() returns').map((one): Need => {
    const need = object(one, 'a need');
    const of = (field: string) => text(need[field], field);
    const kind = oneOf(need.kind, ['configMap', 'clusterTrustBundle', 'token', 'address'], 'the kind of a need');
    if (kind === 'clusterTrustBundle') return { kind, name: of('name') };
    if (kind === 'address') return { kind, address: of('address'), field: of('field') };
    const place = { namespace: of('namespace'), name: of('name') };
    return kind === 'configMap' ? { kind, ...place } : { kind, ...place, audience: of('audience'), field: of('field') };
  });
}

export function tlsFrom(value: unknown, what: string): TlsDefaults {
  const given = object(value, what);
  const alpnProtocols = optionalText(given.alpnProtocols, 'tls.alpnProtocols');
  const version = (field: string) =>
    given[field] === undefined ? undefined : oneOf(given[field], ['v1.2', 'v1.3'], `tls.${field}`);
  const [minTlsVersion, maxTlsVersion] = [version('minTlsVersion'), version('maxTlsVersion')];
  return {
    ...(alpnProtocols === undefined ? {} : { alpnProtocols }),
    ...(minTlsVersion === undefined ? {} : { minTlsVersion }),
    ...(maxTlsVersion === undefined ? {} : { maxTlsVersion }),
  };
}

export function tokenFieldsFrom(value: unknown): readonly TokenField[] {
  return list(value ?? [], 'tokenFields').map((one) => {
    const { path, names } = object(one, 'a member of tokenFields');
    const fieldPath = text(path, 'its path');
    if (!/^\w+(\.\w+)*$/.test(fieldPath)) fail(`the path ${fieldPath} is not fields with dots between them`);
    return { path: fieldPath, names: oneOf(names, ['account', 'reference', 'agent'], 'names') };
  });
}

/** The functions of an object, for what must be there. */
export function functionsOf(value: unknown, what: string, names: readonly string[]): Fields {
  const given = object(value, what);
  const missing = names.filter((name) => typeof given[name] !== 'function');
  return missing.length === 0 ? given : fail(`${what} has no ${missing.map((name) => `${name}()`).join(', ')}`);
}
