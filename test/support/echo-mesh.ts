import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CallContext, type Handler, serve } from '../../sandbox/grpc/server.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';

/** A server at an address that an attacker chose: it repeats everything that it receives in its errors. */
export interface EchoMesh extends AsyncDisposable {
  /** Consul's HTTP API. */
  readonly http: string;
  /** Like `http`, but a login succeeds, with a token that contains a line break. */
  readonly brokenLogin: string;
  /** gRPC without TLS: Consul's services. */
  readonly grpc: string;
  /** gRPC over TLS: Istio's CA and Linkerd's identity service. */
  readonly grpcs: string;
  /** PEM, of `grpcs`. */
  readonly root: string;
  /** Everything that it received, so that a test knows that the secrets arrived. */
  received(): string;
}

const LINKERD_IDENTITY = 'linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local';

export async function startEchoMesh(loginAnswer: string): Promise<EchoMesh> {
  let received = '';
  const remember = (text: string) => {
    received += `${text}\n`;
    return text;
  };
  const http = await httpServer(remember);
  const brokenLogin = await httpServer(remember, JSON.stringify({ SecretID: loginAnswer }));
  const services = servicesOf(remember);
  const ca = SandboxCa.root();
  const { chain, key } = ca.identity({ dns: ['localhost', LINKERD_IDENTITY] });
  const cert = chain.map(({ pem }) => pem).join('');
  const listen = { port: 0, host: '127.0.0.1' };
  const plain = await serve({ services, listen });
  const secure = await serve({ services, listen, tls: { cert, key: key.toPem() } });
  return {
    http: http.url,
    brokenLogin: brokenLogin.url,
    grpc: `127.0.0.1:${plain.port}`,
    grpcs: `127.0.0.1:${secure.port}`,
    root: ca.root.pem,
    received: () => received,
    async [Symbol.asyncDispose]() {
      await Promise.all([http.stop(), brokenLogin.stop(), plain.stop(), secure.stop()]);
    },
  };
}

async function httpServer(remember: (text: string) => string, login?: string) {
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const all = remember(JSON.stringify([request.url, request.rawHeaders, Buffer.concat(parts).toString()]));
      const isLogin = login !== undefined && request.url?.startsWith('/v1/acl/login');
      response.writeHead(isLogin ? 200 : 500, { 'content-type': 'application/json' });
      response.end(isLogin ? login : all);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function servicesOf(remember: (text: string) => string) {
  const refuse = (request: object, context: CallContext): never => {
    const fields = Object.entries(request).map(([name, value]) => [name, String(value)]);
    throw new GrpcError(grpcStatus.UNAVAILABLE, remember(JSON.stringify([context.metadata, fields])));
  };
  const unary: Handler = { unary: refuse };
  const stream: Handler = {
    async stream({ context }) {
      refuse({}, context);
    },
  };
  return {
    'istio.v1.auth.IstioCertificateService': { CreateCertificate: unary },
    'io.linkerd.proxy.identity.Identity': { Certify: unary },
    'hashicorp.consul.connectca.ConnectCAService': { Sign: unary, WatchRoots: stream },
    'hashicorp.consul.acl.ACLService': { Login: unary, Logout: unary },
  };
}
