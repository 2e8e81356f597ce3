import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { servePart } from './part.ts';

export interface StreamOptions {
  readonly namespace: string;
  /** Events of one watch. */
  readonly events: number;
  /** The number of Secrets that the events rotate through. */
  readonly secrets: number;
  /** Of the data of each Secret. */
  readonly bytes: number;
}

const methods = {
  /** An API server that lists no Secrets, and answers each watch with the same events at once. */
  async start({ namespace, events, secrets, bytes }: StreamOptions) {
    const data = { 'tls.crt': Buffer.alloc(bytes, 'x').toString('base64') };
    const lines = Array.from({ length: events }, (_, at) => {
      const metadata = { name: `s-${at % secrets}`, namespace, uid: `${at % secrets}`, resourceVersion: `${at + 2}` };
      const object = { apiVersion: 'v1', kind: 'Secret', metadata, type: 'kubernetes.io/tls', data };
      return `${JSON.stringify({ type: at < secrets ? 'ADDED' : 'MODIFIED', object })}\n`;
    });
    const stream = Buffer.from(lines.join(''));
    const list = { apiVersion: 'v1', kind: 'SecretList', metadata: { resourceVersion: '1' }, items: [] };
    const server = createServer((request, response) => {
      const query = new URL(request.url ?? '', 'http://here').searchParams;
      // Like a server that does not begin watches with the state.
      response.writeHead(query.has('sendInitialEvents') ? 422 : 200, { 'content-type': 'application/json' });
      if (query.has('watch') && !query.has('sendInitialEvents')) response.write(stream);
      else response.end(JSON.stringify(list));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  },
};

export type Stream = typeof methods;
servePart(methods);
