import { fromJSON, type PackageDefinition } from '@grpc/proto-loader';
import descriptors from './gen/protos.json' with { type: 'json' };

/** Encodes and decodes one message; also for messages inside a google.protobuf.Any. */
interface MessageType<T> {
  encode(message: T): Buffer;
  decode(bytes: Uint8Array): T;
}

interface Method {
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

/** One place in the tree of declarations: a package, a message or a service. */
interface Declared {
  readonly nested?: Readonly<Record<string, Declared>>;
  readonly fields?: Readonly<Record<string, { readonly type: string; readonly id: number }>>;
  readonly methods?: Readonly<Record<string, { readonly responseType: string }>>;
}

const ROOT = descriptors as Declared;
const shapes = new Map<string, WireShape>();

/** The shape of the message with this full name. */
function messageShape(name: string): WireShape {
  let shape = shapes.get(name);
  if (!shape) {
    const fields = Object.values(at(name)?.fields ?? {});
    shape = new Map(
      fields.flatMap(({ id, type }) => {
        const inner = resolve(name, type);
        return inner === undefined ? [] : [[id, () => messageShape(inner)] as const];
      }),
    );
    shapes.set(name, shape);
  }
  return shape;
}

/** The shape of a method's response. */
function responseShape(service: string, method: string): WireShape {
  const type = at(service)?.methods?.[method]?.responseType;
  const name = type === undefined ? undefined : resolve(service, type);
  if (name === undefined) throw new TypeError(`no declaration of what ${service}/${method} answers`);
  return messageShape(name);
}

function at(name: string): Declared | undefined {
  let place: Declared | undefined = ROOT;
  for (const part of name.split('.')) place = place?.nested?.[part];
  return place;
}

/** The full name of a message as it is referred to within `scope`; undefined for anything but a message. */
function resolve(scope: string, type: string): string | undefined {
  // A full name begins with a dot.
  const parts = type.startsWith('.') ? [] : scope.split('.');
  const local = type.replace(/^\./, '');
  for (let depth = parts.length; depth >= 0; depth--) {
    const name = [...parts.slice(0, depth), local].join('.');
    if (at(name)?.fields) return name;
  }
  return undefined;
}

/** Which fields of a message hold messages, by number. */
type WireShape = ReadonlyMap<number, () => WireShape>;

/** A push with 64 roots and a bundle for each of 256 trust domains has about 1,500 fields. */
const MOST_FIELDS = 10_000;
const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

/**
 * Counts the fields of an encoded message, and of the messages in it, before it is decoded: an empty field takes two
 * bytes there and about a hundred in memory. Throws a RangeError over the limit, and for bytes that are not a message.
 */
function checkFields(bytes: Uint8Array, shape: WireShape): void {
  new Counting(bytes).message(0, bytes.length, shape);
}

class Counting {
  readonly #bytes: Uint8Array;
  #at = 0;
  #fields = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  message(start: number, end: number, shape: WireShape): void {
    this.#at = start;
    while (this.#at < end) {
      this.#fields += 1;
      if (this.#fields > MOST_FIELDS) throw new RangeError(`a message of more than ${MOST_FIELDS} fields`);
      const tag = this.#varint(end);
      const kind = tag & 7;
      if (kind === VARINT) this.#varint(end);
      else if (kind === FIXED64) this.#at += 8;
      else if (kind === FIXED32) this.#at += 4;
      else if (kind === LENGTH) {
        const stop = this.#varint(end) + this.#at;
        if (stop > end) throw cut();
        const inner = shape.get(Math.floor(tag / 8));
        if (inner) this.message(this.#at, stop, inner());
        this.#at = stop;
      } else throw new RangeError('a message with a field of an unknown kind');
    }
    if (this.#at > end) throw cut();
  }

  /** Exact up to 2^53; no valid tag or length is longer, so the value of longer ones does not matter. */
  #varint(end: number): number {
    let value = 0;
    for (let digit = 0; digit < 10 && this.#at < end; digit++) {
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte & 0x7f) * 2 ** (7 * digit);
      if (byte < 0x80) return value;
    }
    throw cut();
  }
}

const cut = (): RangeError => new RangeError('a message that is cut short');
