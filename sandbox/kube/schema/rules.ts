import { apiVersionOf, type Kind } from '../objects/kinds.ts';
import { fieldsIn, type JsonFields, type Stored, valueAt } from '../objects/object.ts';
import { ApiError, badRequest, type Cause, invalid } from '../objects/status.ts';
import { defaulted, pruned, violations } from './schema.ts';
import { brokenRules, hasRules } from './schema-rules.ts';

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
const DATA_KEY = /^[-._a-zA-Z0-9]+$/;
const LABEL_VALUE = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
/** RFC 3339 with exactly six digits of a second: anything else is not a MicroTime. */
const MICRO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$/;
/** etcd accepts 1.5 MiB; a Secret's own limit is 1 MiB of values. */
const SECRET_LIMIT = 1024 * 1024;

export type FieldValidation = 'Ignore' | 'Warn' | 'Strict';

/** A strict patch to a custom resource must not add fields that its schema does not have. */
export function checkPatched(kind: Kind, object: Stored): void {
  const unknown: string[] = [];
  if (kind.schema) pruned(object, kind.schema, unknown);
  if (unknown.length === 0) return;
  const said = unknown.map((path) => `unknown field "${path}"`).join(', ');
  const message = `Invalid value: ${JSON.stringify(JSON.stringify(object))}: strict decoding error: ${said}`;
  const causes = [{ reason: 'FieldValueInvalid', message, field: 'patch' }];
  throw new ApiError(422, 'Invalid', ` "" is invalid: patch: ${message}`, { causes });
}

/** Server-side apply cannot drop a field: one that the schema does not have is refused, with status 500. */
export function checkDeclared(kind: Kind, config: Stored, namespace: string | undefined): void {
  const unknown: string[] = [];
  if (kind.schema) pruned(config, kind.schema, unknown);
  if (unknown.length === 0) return;
  const what = `${namespace === undefined ? '' : `${namespace}/`}${config.metadata.name}; ${apiVersionOf(kind)}, Kind=${kind.kind}`;
  const fields = unknown.map((path) => `.${path}: field not declared in schema`);
  throw new ApiError(500, '', `failed to create typed patch object (${what}): ${fields.join('\n')}`);
}

/** The object as it would be stored: pruned and with its defaults, or a refusal. */
export function admitted(kind: Kind, object: Stored, validation: FieldValidation): Stored {
  if (!kind.schema) return withDefaults(kind, decoded(kind, object));
  const dropped: string[] = [];
  const kept = pruned(object, kind.schema, dropped);
  if (dropped.length > 0 && validation === 'Strict') {
    throw badRequest(
      `${kind.kind} in version "${kind.version}" cannot be handled as a ${kind.kind}: strict decoding error: ${dropped.map((path) => `unknown field "${path}"`).join(', ')}`,
    );
  }
  return defaulted(kept, kind.schema) as Stored;
}

/** Throws 422 with every rule that the object breaks. */
export function validate(kind: Kind, object: Stored, before: Stored | undefined): void {
  const isTrustBundle = kind.kind === 'ClusterTrustBundle';
  const naming = isTrustBundle ? trustBundleRules(object, before) : nameRules(kind, object);
  const causes: Cause[] = [...naming, ...labelRules(object)];
  if (kind.schema) causes.push(...schemaRules(kind.schema, object, before));
  if (kind.kind === 'Secret') causes.push(...secretRules(object, before));
  if (kind.kind === 'EndpointSlice') causes.push(...addressRules(object));
  if (kind.kind === 'ConfigMap') causes.push(...keyRules(object));
  if (causes.length > 0) throw invalid(kind, object.metadata.name, causes);
}

/** With these the value may not have the type that a rule expects. */
const BLOCKING = new Set([
  'FieldValueNotSupported',
  'FieldValueRequired',
  'FieldValueTooLong',
  'FieldValueTooMany',
  'FieldValueTypeInvalid',
]);

function schemaRules(schema: JsonFields, object: Stored, before: Stored | undefined): Cause[] {
  const wrong = violations(object, schema);
  if (!wrong.some((cause) => BLOCKING.has(cause.reason))) return [...wrong, ...brokenRules(object, schema, before)];
  if (!hasRules(schema)) return wrong;
  const message =
    'Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation';
  return [...wrong, { reason: 'FieldValueInvalid', message, field: '<nil>' }];
}

function addressRules({ endpoints }: Stored): Cause[] {
  const all = (endpoints ?? []) as readonly { readonly addresses?: readonly string[] }[];
  return all.flatMap(({ addresses = [] }, endpoint) =>
    addresses.flatMap((address, at) => {
      if (!/^127\.|^::1$/.test(address)) return [];
      const message = `Invalid value: "${address}": may not be in the loopback range (127.0.0.0/8, ::1/128)`;
      return [{ reason: 'FieldValueInvalid', message, field: `endpoints[${endpoint}].addresses[${at}]` }];
    }),
  );
}

function nameRules(kind: Kind, object: Stored): Cause[] {
  const { name } = object.metadata;
  const rbac = kind.group === 'rbac.authorization.k8s.io';
  const pattern = kind.kind === 'Namespace' || kind.kind === 'Service' ? LABEL : SUBDOMAIN;
  if (name.length <= 253 && (rbac || pattern.test(name))) return [];
  const message = `Invalid value: ${JSON.stringify(name)}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character`;
  return [{ reason: 'FieldValueInvalid', message, field: 'metadata.name' }];
}

function trustBundleRules(object: Stored, before: Stored | undefined): Cause[] {
  const { name } = object.metadata;
  const { signerName = '', trustBundle } = fieldsIn(object.spec) as Partial<Record<string, string>>;
  const invalid = (message: string, field: string) => ({ reason: 'FieldValueInvalid', message, field });
  const prefix = signerName === '' ? '' : `${signerName.replaceAll('/', ':')}:`;
  const causes: Cause[] = [];
  if (!name.startsWith(prefix)) {
    const why = `ClusterTrustBundle for signerName ${signerName} must be named with prefix ${prefix}`;
    causes.push(invalid(`Invalid value: ${JSON.stringify(name)}: ${why}`, 'metadata.name'));
  } else if (prefix === '' && name.includes(':')) {
    const why = 'ClusterTrustBundle without signer name must not have ":" in its name';
    causes.push(invalid(`Invalid value: ${JSON.stringify(name)}: ${why}`, 'metadata.name'));
  } else if (!SUBDOMAIN.test(name.slice(prefix.length))) {
    causes.push(invalid(`Invalid value: ${JSON.stringify(name)}: a lowercase RFC 1123 subdomain`, 'metadata.name'));
  }
  if (!/-----BEGIN CERTIFICATE-----/.test(trustBundle ?? '')) {
    const why = 'at least one trust anchor must be provided';
    causes.push(invalid(`Invalid value: "<value omitted>": ${why}`, 'spec.trustBundle'));
  }
  if (before && (fieldsIn(before.spec).signerName ?? '') !== signerName) {
    causes.push(invalid(`Invalid value: ${JSON.stringify(signerName)}: field is immutable`, 'spec.signerName'));
  }
  return causes;
}

function labelRules(object: Stored): Cause[] {
  return Object.values(object.metadata.labels ?? {})
    .filter((value) => value.length > 63 || !LABEL_VALUE.test(value))
    .map((value) => ({
      reason: 'FieldValueInvalid',
      message: `Invalid value: ${JSON.stringify(value)}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character`,
      field: 'metadata.labels',
    }));
}

function keyRules(object: Stored): Cause[] {
  return Object.keys({ ...fieldsIn(object.data), ...fieldsIn(object.binaryData) })
    .filter((key) => !DATA_KEY.test(key))
    .map((key) => ({
      reason: 'FieldValueInvalid',
      message: `Invalid value: ${JSON.stringify(key)}: a valid config key must consist of alphanumeric characters, '-', '_' or '.'`,
      field: `data[${key}]`,
    }));
}

function secretRules(object: Stored, before: Stored | undefined): Cause[] {
  const data = fieldsIn(object.data);
  const causes = keyRules(object);
  if (object.type === 'kubernetes.io/tls') {
    for (const key of ['tls.crt', 'tls.key']) {
      if (data[key] === undefined)
        causes.push({ reason: 'FieldValueRequired', message: 'Required value', field: `data[${key}]` });
    }
  }
  const size = Object.values(data).reduce((sum: number, value) => sum + (String(value).length * 3) / 4, 0);
  if (size > SECRET_LIMIT) {
    causes.push({
      reason: 'FieldValueTooLong',
      message: `Too long: may not be more than ${SECRET_LIMIT} bytes`,
      field: 'data',
    });
  }
  if (before && before.type !== object.type) {
    causes.push({
      reason: 'FieldValueInvalid',
      message: `Invalid value: ${JSON.stringify(object.type)}: field is immutable`,
      field: 'type',
    });
  }
  return causes;
}

/** What decoding into the Go type refuses with 400. */
function decoded(kind: Kind, object: Stored): Stored {
  const cannot = (why: string) =>
    badRequest(`${kind.kind} in version "${kind.version}" cannot be handled as a ${kind.kind}: ${why}`);
  if (kind.kind === 'Secret') {
    for (const value of Object.values(fieldsIn(object.data))) {
      if (typeof value === 'string' && !BASE64.test(value)) throw cannot('illegal base64 data at input byte 0');
    }
  }
  if (kind.kind === 'ConfigMap') {
    for (const value of Object.values(fieldsIn(object.data))) {
      if (typeof value !== 'string') {
        throw cannot(`json: cannot unmarshal ${typeof value} into Go struct field ConfigMap.data of type string`);
      }
    }
  }
  if (kind.kind === 'Lease') {
    for (const name of ['acquireTime', 'renewTime']) {
      const time = valueAt(object, 'spec', name);
      if (time != null && !MICRO_TIME.test(String(time))) {
        throw cannot(`parsing time ${JSON.stringify(time)} as "2006-01-02T15:04:05.000000Z07:00": cannot parse`);
      }
    }
  }
  return object;
}

function withDefaults(kind: Kind, object: Stored): Stored {
  if (kind.kind === 'Secret') {
    const { stringData, ...rest } = object;
    const written = Object.entries(fieldsIn(stringData)).map(([key, text]): [string, unknown] => [
      key,
      Buffer.from(String(text)).toString('base64'),
    ]);
    const data = written.length > 0 ? { ...fieldsIn(object.data), ...Object.fromEntries(written) } : object.data;
    return { ...rest, type: object.type ?? 'Opaque', ...(data === undefined ? {} : { data }) } as Stored;
  }
  if (kind.kind === 'Namespace') {
    return {
      ...object,
      spec: { finalizers: ['kubernetes'], ...fieldsIn(object.spec) },
      status: object.status ?? { phase: 'Active' },
    };
  }
  if (kind.kind === 'Service') {
    const spec: JsonFields = { type: 'ClusterIP', sessionAffinity: 'None', ...fieldsIn(object.spec) };
    if (Array.isArray(spec.ports)) {
      spec.ports = spec.ports.map(fieldsIn).map((port) => ({ protocol: 'TCP', targetPort: port.port, ...port }));
    }
    return { ...object, spec };
  }
  return object;
}

/** Refuses a body of another kind or place than the path. */
export function checkAddress(
  kind: Kind,
  object: Stored,
  namespace: string | undefined,
  name: string | undefined,
): void {
  const apiVersion = apiVersionOf(kind);
  if (object.kind !== kind.kind || object.apiVersion !== apiVersion) {
    throw badRequest(
      `${object.kind} in version ${JSON.stringify(object.apiVersion)} cannot be handled as a ${kind.kind}: the API version in the data (${object.apiVersion}) does not match the expected API version (${apiVersion})`,
    );
  }
  const said = object.metadata.namespace;
  if (said !== undefined && said !== namespace) {
    throw badRequest('the namespace of the provided object does not match the namespace sent on the request');
  }
  if (name !== undefined && object.metadata.name !== undefined && object.metadata.name !== name) {
    throw badRequest(`the name of the object (${object.metadata.name}) does not match the name on the URL (${name})`);
  }
  if (name === undefined && !object.metadata.name && !object.metadata.generateName) {
    throw new ApiError(
      422,
      'Invalid',
      `${kind.kind} "" is invalid: metadata.name: Required value: name or generateName is required`,
    );
  }
}
