import { fromJSON, type PackageDefinition } from '@grpc/proto-loader';
import descriptors from './gen/protos.json' with { type: 'json' };
import { messageShape, responseShape } from './shape.ts';
import { checkFields } from './wire.ts';

/** Encodes and decodes one message; also for messages inside a google.protobuf.Any. */
export interface MessageType<T> {
  encode(message: T): Buffer;
  decode(bytes: Uint8Array): T;
}

export interface Method {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (message: object) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => object;
  readonly responseSerialize: (message: object) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => object;
}

let definitions: PackageDefinition | undefined;

/** Parsed on first use, from constants: a process that uses no gRPC does not pay for it. */
function lookUp(name: string): PackageDefinition[string] {
  definitions ??= fromJSON(descriptors as Parameters<typeof fromJSON>[0], {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const found = definitions[name];
  if (!found) throw new TypeError(`no protobuf definition of ${name}: is it in protos/, and was npm run gen run?`);
  return found;
}

/** All methods of a service, by name, as grpc-js wants them. */
export function loadService(name: string): Readonly<Record<string, Method>> {
  const service = lookUp(name);
  if ('format' in service) throw new TypeError(`${name} is a message, not a service`);
  return service as unknown as Record<string, Method>;
}

/** `package.Service/Method`. An answer with too many fields is refused with a RangeError before it is decoded. */
export function loadMethod(fullName: string): Method {
  const [service = '', method = ''] = fullName.split('/');
  const found = loadService(service)[method];
  if (!found) throw new TypeError(`${service} has no method ${method}`);
  const shape = responseShape(service, method);
  return {
    ...found,
    responseDeserialize: (bytes) => {
      checkFields(bytes, shape);
      return found.responseDeserialize(bytes);
    },
  };
}

/**
 * Bytes with too many fields are refused with a RangeError before they are decoded. Field names as in the .proto,
 * 64-bit integers as decimal strings, enums by name, bytes as Buffer, absent fields with their defaults, and the name
 * of the member that is set under each oneof's name. Only google.protobuf.Value is in camelCase.
 */
export function messageType<T extends object>(name: string): MessageType<T> {
  const type = lookUp(name);
  if (!('serialize' in type && typeof type.serialize === 'function')) throw new TypeError(`${name} is not a message`);
  const shape = messageShape(name);
  const { serialize, deserialize } = type as unknown as {
    serialize: (message: object) => Buffer;
    deserialize: (bytes: Buffer) => object;
  };
  return {
    encode: (message) => serialize(message),
    decode: (bytes) => {
      checkFields(bytes, shape);
      return deserialize(Buffer.from(bytes)) as T;
    },
  };
}
