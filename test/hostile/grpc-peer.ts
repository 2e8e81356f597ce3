import { Server, ServerCredentials, type ServiceDefinition } from '@grpc/grpc-js';

const same = (bytes: Buffer): Buffer => bytes;

export interface GrpcPeer extends AsyncDisposable {
  readonly port: number;
}

export interface GrpcPeerOptions {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  /** `unix:/path`, or absent for a TCP port of loopback. */
  readonly address?: string;
  readonly credentials?: ServerCredentials;
  /** The messages of one call in their wire format: bytes that no encoder of ours has made. Throws the call's status. */
  answers(signal: AbortSignal): AsyncIterable<Buffer> | Iterable<Buffer>;
}

/** A gRPC server of one method whose messages are arbitrary bytes. */
export async function grpcPeer(options: GrpcPeerOptions): Promise<GrpcPeer> {
  const server = new Server({ 'grpc.max_send_message_length': -1 });
  const { path, requestStream, responseStream, answers } = options;
  const method = {
    path,
    requestStream,
    responseStream,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
  const calls = new Set<AbortController>();
  const unary = async (_call: unknown, answer: (error: Error | null, bytes?: Buffer) => void) => {
    try {
      for await (const bytes of answers(new AbortController().signal)) return answer(null, bytes);
    } catch (error) {
      answer(error as Error);
    }
  };
  const stream = async (
    call: NodeJS.EventEmitter & { write(bytes: Buffer): boolean; end(): void; resume?(): void },
  ) => {
    const ended = new AbortController();
    calls.add(ended);
    const end = () => {
      calls.delete(ended);
      ended.abort(new Error('the call ended'));
    };
    for (const event of ['cancelled', 'error', 'close']) call.on(event, end);
    call.resume?.();
    try {
      for await (const bytes of answers(ended.signal)) {
        if (ended.signal.aborted) break;
        if (!call.write(bytes)) await Promise.race([once(call, 'drain'), onceAborted(ended.signal)]);
      }
    } catch (error) {
      if (!ended.signal.aborted) call.emit('error', error);
    }
  };
  server.addService({ method } as unknown as ServiceDefinition, { method: (responseStream ? stream : unary) as never });
  const port = await new Promise<number>((resolve, reject) => {
    const address = options.address ?? '127.0.0.1:0';
    const credentials = options.credentials ?? ServerCredentials.createInsecure();
    server.bindAsync(address, credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const call of calls) call.abort(new Error('the peer ends'));
      server.forceShutdown();
    },
  };
}

const once = (emitter: NodeJS.EventEmitter, event: string): Promise<void> =>
  new Promise((resolve) => emitter.once(event, () => resolve()));

export const onceAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
