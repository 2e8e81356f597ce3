import { fileURLToPath } from 'node:url';
import { type ChannelCredentials, Client, type ClientOptions, Metadata, type ServiceError } from '@grpc/grpc-js';
import { loadSync, type MethodDefinition } from '@grpc/proto-loader';

const protos = ['../../../protos/', '../protos/'].map((path) => fileURLToPath(new URL(path, import.meta.url)));

// biome-ignore lint/suspicious/noExplicitAny: messages of any method
type Message = any;

export interface Target {
  /** A gRPC target: `127.0.0.1:1234` or `unix:/path`. */
  readonly address: string;
  readonly credentials: ChannelCredentials;
  readonly options?: ClientOptions;
}

/**
 * The first answer of a method, unary or bidirectional, to one request. Uses `protos/` and those of the tests without our own client, so that
 * a test of a real server does not depend on the code under test.
 */
export async function firstAnswer(
  target: Target,
  method: { readonly file: string; readonly service: string; readonly name: string },
  request: object,
  metadata: Readonly<Record<string, string>> = {},
): Promise<Message> {
  const { path, requestSerialize, responseDeserialize, requestStream } = find(method);
  const client = new Client(target.address, target.credentials, { 'grpc.enable_http_proxy': 0, ...target.options });
  const headers = new Metadata();
  for (const [name, value] of Object.entries(metadata)) headers.set(name, value);
  const options = { deadline: Date.now() + 10_000 };
  try {
    return await new Promise<Message>((resolve, reject) => {
      const done = (error: ServiceError | null, answer?: Message): void => (error ? reject(error) : resolve(answer));
      if (requestStream) {
        const stream = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, headers, options);
        stream.once('data', (answer) => done(null, answer)).on('error', done);
        stream.write(request);
      } else {
        client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, headers, options, done);
      }
    });
  } finally {
    client.close();
  }
}

export function decode(file: string, message: string, bytes: Buffer): Message {
  const type = load(file)[message] as unknown as { deserialize(bytes: Buffer): Message };
  return type.deserialize(bytes);
}

function find(method: { file: string; service: string; name: string }): MethodDefinition<object, object> {
  const service = load(method.file)[method.service] as unknown as Record<string, MethodDefinition<object, object>>;
  const found = service?.[method.name];
  if (!found) throw new TypeError(`${method.file} has no ${method.service}/${method.name}`);
  return found;
}

function load(file: string) {
  return loadSync(file, { includeDirs: protos, keepCase: true, longs: String, enums: String, defaults: true });
}
