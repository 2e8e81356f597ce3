import type { PeerCertificate } from 'node:tls';
import {
  type handleBidiStreamingCall,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  status,
} from '@grpc/grpc-js';
import { GrpcError } from '../../src/grpc/error.ts';
import { loadService } from '../../src/grpc/messages.ts';
import { type ListenOn, listen, type ServerTls } from './listen.ts';

/** What a handler knows about its caller. */
export interface CallContext {
  readonly metadata: Readonly<Record<string, string>>;
  /** Address of the peer. */
  readonly peer: string;
  /** The client's certificate, verified; absent when it gave none. */
  readonly clientCertificate: PeerCertificate | undefined;
  /** Aborted when the call ends. */
  readonly signal: AbortSignal;
}

export interface ServerStream<Request, Response> extends AsyncIterable<Request> {
  readonly context: CallContext;
  write(message: Response): void;
}

/**
 * A thrown GrpcError becomes the call's status, anything else UNKNOWN; a stream ends normally when its handler returns.
 */
export type Handler =
  | { readonly unary: (request: never, context: CallContext) => Promise<object> | object }
  | { readonly stream: (stream: ServerStream<never, object>) => Promise<void> };

/** By service, then by method; a method without a handler answers UNIMPLEMENTED. */
export type Services = Readonly<Record<string, Readonly<Record<string, Handler>>>>;

export interface ServeOptions {
  readonly services: Services;
  readonly listen: ListenOn;
  readonly tls?: ServerTls | undefined;
}

export interface RunningServer {
  /** What a client dials. */
  readonly address: string;
  readonly port: number;
  /** For new connections; existing ones keep their settings. */
  setTls(tls: ServerTls): void;
  /** Ends every call and connection at once. */
  stop(): Promise<void>;
  /** Refuses new calls and waits for those in progress. */
  drain(): Promise<void>;
}

export async function serve(options: ServeOptions): Promise<RunningServer> {
  const server = new Server({ 'grpc.enable_channelz': 0 });
  for (const [name, handlers] of Object.entries(options.services)) {
    const implementation: Record<string, handleUnaryCall<object, object> | handleBidiStreamingCall<object, object>> =
      {};
    for (const [method, handler] of Object.entries(handlers)) {
      implementation[method] = 'unary' in handler ? unaryHandler(handler.unary) : streamHandler(handler.stream);
    }
    server.addService(loadService(name), implementation);
  }
  // The server owns its connections, so that stopping ends them too: grpc-js only half-closes them while calls are in
  // progress.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = await listen(options.listen, options.tls, (socket) => injector.injectConnection(socket));
  return {
    address: listener.address,
    port: listener.port,
    setTls: listener.setTls,
    async stop() {
      await listener.destroy();
      server.forceShutdown();
    },
    drain() {
      listener.close();
      return new Promise((resolve, reject) => server.tryShutdown((error) => (error ? reject(error) : resolve())));
    },
  };
}

interface AnyCall {
  readonly metadata: Metadata;
  readonly cancelled: boolean;
  getPeer(): string;
  getAuthContext(): { readonly sslPeerCertificate?: PeerCertificate };
  on(event: 'cancelled' | 'close' | 'end', listener: () => void): unknown;
}

function contextOf(call: AnyCall, signal: AbortSignal): CallContext {
  const entries = Object.entries(call.metadata.getMap()).map(([name, value]) => [name, String(value)]);
  const certificate = call.getAuthContext().sslPeerCertificate;
  const given = certificate !== undefined && Object.keys(certificate).length > 0;
  return {
    metadata: Object.fromEntries(entries),
    peer: call.getPeer(),
    clientCertificate: given ? certificate : undefined,
    signal,
  };
}

function unaryHandler(handle: (request: never, context: CallContext) => Promise<object> | object) {
  const handler: handleUnaryCall<object, object> = async (call, answer) => {
    const ended = new AbortController();
    call.on('cancelled', () => ended.abort());
    try {
      answer(null, await handle(call.request as never, contextOf(call as unknown as AnyCall, ended.signal)));
    } catch (error) {
      answer(statusOf(error));
    } finally {
      ended.abort();
    }
  };
  return handler;
}

function streamHandler(handle: (stream: ServerStream<never, object>) => Promise<void>) {
  const handler: handleBidiStreamingCall<object, object> = async (call) => {
    const ended = new AbortController();
    call.on('cancelled', () => ended.abort());
    call.on('error', () => ended.abort());
    const stream: ServerStream<never, object> = {
      context: contextOf(call as unknown as AnyCall, ended.signal),
      write(message) {
        if (!ended.signal.aborted && !call.cancelled) call.write(message);
      },
      // Of a method that takes one message. The plain iterator would destroy the writing half of other streams too,
      // before its messages are sent.
      [Symbol.asyncIterator]: () =>
        'request' in call
          ? only(call.request as never)
          : (call.iterator({ destroyOnReturn: false }) as AsyncIterator<never>),
    };
    try {
      await handle(stream);
      call.end();
    } catch (error) {
      if (!ended.signal.aborted) call.emit('error', statusOf(error));
    } finally {
      ended.abort();
    }
  };
  return handler;
}

async function* only<T>(message: T): AsyncGenerator<T> {
  yield message;
}

function statusOf(error: unknown): {
  code: number;
  details: string;
  metadata: Metadata;
  name: string;
  message: string;
} {
  const { code, details } =
    error instanceof GrpcError
      ? { code: error.status, details: error.details }
      : { code: status.UNKNOWN, details: error instanceof Error ? error.message : String(error) };
  return { code, details, metadata: new Metadata(), name: 'GrpcError', message: details };
}
