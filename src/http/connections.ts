import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { PacedSocket } from './paced-socket.ts';

/**
 * Idle ones cost about 10 KiB each. Far more than scrapers, probes and pages need, so that the connection of a probe is
 * not the oldest before it was read, however many others come with it.
 */
const MOST_CONNECTIONS = 512;
/** No scraper, probe or browser sends the next request before it has the answer. */
const MOST_PIPELINED = 4;
/** Bytes of answers that were made and not read yet, over all connections; beyond it, no further one is made. */
const MOST_UNREAD = 8 * 1024 * 1024;

interface Connection {
  readonly socket: PacedSocket;
  /** Requests without a complete answer. */
  pending: number;
  /** Bytes of answers that are not sent yet. */
  unread: number;
  streams: boolean;
}

/**
 * Keeps room for new connections. One beyond the limit closes the one that has been idle longest, or else the one whose
 * request is oldest: probes come over new connections and are answered at once, so that they get through whatever the
 * others hold.
 */
export class Connections {
  /** The connection that sent a request last is last. */
  readonly #open = new Map<Duplex, Connection>();
  #unread = 0;

  /** Returns the stream that the HTTP server gets for a connection. */
  accept(raw: Socket): Duplex {
    if (this.#open.size >= MOST_CONNECTIONS) this.#oneToClose()?.destroy();
    const socket = new PacedSocket(raw);
    const connection = { socket, pending: 0, unread: 0, streams: false };
    this.#open.set(socket, connection);
    // A response that waits behind another one in a closed connection never closes itself.
    socket.once('close', () => {
      this.#open.delete(socket);
      this.#unread -= connection.unread;
    });
    return socket;
  }

  close(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  /** False if this connection has too many requests in progress; it is closed then. */
  admits(response: ServerResponse): boolean {
    const { socket } = response.req;
    const connection = this.#open.get(socket);
    if (!connection) return false;
    if (connection.pending >= MOST_PIPELINED) {
      socket.destroy();
      return false;
    }
    this.#open.delete(socket);
    this.#open.set(socket, connection);
    connection.pending += 1;
    connection.socket.hold();
    response.once('close', () => {
      connection.pending -= 1;
      if (connection.pending === 0) connection.socket.release();
    });
    return true;
  }

  /** False while so much is unread that no further answer may be made. */
  get hasRoom(): boolean {
    return this.#unread < MOST_UNREAD;
  }

  /** An answer of this many bytes counts as unread until it is sent. */
  sends(bytes: number, response: ServerResponse): void {
    const { socket } = response.req;
    const connection = this.#open.get(socket);
    if (!connection) return;
    connection.unread += bytes;
    this.#unread += bytes;
    response.once('close', () => {
      if (!this.#open.has(socket)) return;
      connection.unread -= bytes;
      this.#unread -= bytes;
    });
  }

  /** This connection stays open by design, and is closed last. */
  streams(response: ServerResponse): void {
    const connection = this.#open.get(response.req.socket);
    if (!connection) return;
    connection.streams = true;
    connection.socket.setTimeout(0);
  }

  #oneToClose(): Duplex | undefined {
    const all = [...this.#open];
    const found = all.find(([, { pending }]) => pending === 0) ?? all.find(([, { streams }]) => !streams) ?? all[0];
    return found?.[0];
  }
}
