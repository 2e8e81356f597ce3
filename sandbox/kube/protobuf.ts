import type { JsonFields } from './objects/object.ts';

/**
 * The content of kubectl's imperative commands: a few kinds in Kubernetes' protobuf encoding, behind the bytes `k8s\0`.
 * A field is `name:type`; a type is a scalar, a message below, or `map<…>`; `[]` after it means repeated.
 */
type Message = Readonly<Record<number, string>>;

const RULE: Message = {
  1: 'verbs:string[]',
  2: 'apiGroups:string[]',
  3: 'resources:string[]',
  4: 'resourceNames:string[]',
  5: 'nonResourceURLs:string[]',
};
const BINDING: Message = { 1: 'metadata:Meta', 2: 'subjects:Subject[]', 3: 'roleRef:RoleRef' };
const ROLE: Message = { 1: 'metadata:Meta', 2: 'rules:Rule[]' };

const MESSAGES: Readonly<Record<string, Message>> = {
  'map<string>': { 1: 'key:string', 2: 'value:string' },
  'map<base64>': { 1: 'key:string', 2: 'value:base64' },
  Unknown: { 1: 'type:TypeMeta', 2: 'raw:bytes' },
  TypeMeta: { 1: 'apiVersion:string', 2: 'kind:string' },
  Meta: {
    1: 'name:string',
    2: 'generateName:string',
    3: 'namespace:string',
    5: 'uid:string',
    6: 'resourceVersion:string',
    11: 'labels:map<string>',
    12: 'annotations:map<string>',
    14: 'finalizers:string[]',
  },
  Secret: {
    1: 'metadata:Meta',
    2: 'data:map<base64>',
    3: 'type:string',
    4: 'stringData:map<string>',
    5: 'immutable:bool',
  },
  ConfigMap: { 1: 'metadata:Meta', 2: 'data:map<string>', 3: 'binaryData:map<base64>', 4: 'immutable:bool' },
  ServiceAccount: { 1: 'metadata:Meta' },
  Namespace: { 1: 'metadata:Meta' },
  Role: ROLE,
  ClusterRole: ROLE,
  RoleBinding: BINDING,
  ClusterRoleBinding: BINDING,
  Rule: RULE,
  Subject: { 1: 'kind:string', 2: 'apiGroup:string', 3: 'name:string', 4: 'namespace:string' },
  RoleRef: { 1: 'apiGroup:string', 2: 'kind:string', 3: 'name:string' },
  SelfSubjectAccessReview: { 1: 'metadata:Meta', 2: 'spec:AccessSpec' },
  AccessSpec: { 1: 'resourceAttributes:Attributes' },
  Attributes: {
    1: 'namespace:string',
    2: 'verb:string',
    3: 'group:string',
    4: 'version:string',
    5: 'resource:string',
    6: 'subresource:string',
    7: 'name:string',
  },
  TokenRequest: { 1: 'metadata:Meta', 2: 'spec:TokenSpec' },
  TokenSpec: { 1: 'audiences:string[]', 4: 'expirationSeconds:int' },
  SelfSubjectReview: { 1: 'metadata:Meta' },
};

/** The object, or undefined for an unsupported kind. */
export function decodeProtobuf(body: Buffer): JsonFields | undefined {
  if (body.subarray(0, 4).toString('latin1') !== 'k8s\0') return undefined;
  const { type, raw } = message('Unknown', body.subarray(4)) as {
    type: { apiVersion: string; kind: string };
    raw: Buffer;
  };
  if (!(type.kind in MESSAGES)) return undefined;
  return { ...type, ...message(type.kind, raw) };
}

function message(name: string, bytes: Buffer): JsonFields {
  const result: JsonFields = {};
  const reader = new ProtobufReader(bytes);
  while (!reader.done) {
    const tag = reader.varint();
    const value = (tag & 7) === 0 ? reader.varint() : reader.bytes(reader.varint());
    const [field = '', type = ''] = (MESSAGES[name]?.[tag >> 3] ?? '').split(':');
    if (field !== '') set(result, field, type, value);
  }
  return result;
}

class ProtobufReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  varint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  bytes(length: number): Buffer {
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}

function set(result: JsonFields, field: string, type: string, value: number | Buffer): void {
  if (type.endsWith('[]')) result[field] = [...((result[field] as unknown[]) ?? []), scalar(type.slice(0, -2), value)];
  else if (type.startsWith('map<')) {
    const entry = Buffer.isBuffer(value) ? value : Buffer.alloc(0);
    const { key, value: held } = message(type, entry) as { key: string; value: unknown };
    result[field] = { ...((result[field] as JsonFields) ?? {}), [key]: held };
  } else {
    const decoded = scalar(type, value);
    // Go encodes empty strings, which JSON omits; an empty value of a map is still a value.
    if (decoded !== '' || field === 'value') result[field] = decoded;
  }
}

function scalar(type: string, value: number | Buffer): unknown {
  if (!Buffer.isBuffer(value)) return type === 'bool' ? value !== 0 : value;
  if (type === 'bytes') return value;
  if (type === 'string') return value.toString();
  return type === 'base64' ? value.toString('base64') : message(type, value);
}
