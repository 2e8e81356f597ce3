import type { Socket } from 'node:net';

const HANDSHAKE_RECORD = 0x16;
const CLIENT_HELLO = 1;
const SERVER_NAME = 0;
/** More than any ClientHello in one record. */
const MOST_BYTES = 16_384 + 5;

/** The beginning of a connection: a ClientHello and the server name in it, if any, or something else. */
export type Beginning = { readonly tls: true; readonly serverName: string | undefined } | { readonly tls: false };

/**
 * Reads the first bytes of a connection without consuming them, as Linkerd's proxies do before they decide whether a
 * TLS connection is for them. Undefined when it ends first.
 */
export function peek(socket: Socket): Promise<Beginning | undefined> {
  return new Promise((resolve) => {
    let seen = Buffer.alloc(0);
    const settle = (beginning: Beginning | undefined) => {
      socket.off('readable', read).off('close', ended).off('end', ended);
      if (beginning && seen.length > 0) socket.unshift(seen);
      resolve(beginning);
    };
    const ended = () => settle(undefined);
    const read = () => {
      for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) seen = Buffer.concat([seen, chunk]);
      if (seen.length === 0) return;
      if (seen[0] !== HANDSHAKE_RECORD || seen.length > MOST_BYTES) return settle({ tls: false });
      if (seen.length < 5 || seen.length < 5 + seen.readUInt16BE(3)) return;
      settle({ tls: true, serverName: serverNameOf(seen.subarray(5, 5 + seen.readUInt16BE(3))) });
    };
    socket.on('readable', read).on('close', ended).on('end', ended);
  });
}

/** Walks over version, random, session, suites and compression to the extensions (RFC 8446 §4.1.2). */
function serverNameOf(hello: Buffer): string | undefined {
  if (hello[0] !== CLIENT_HELLO) return undefined;
  try {
    let at = 4 + 2 + 32;
    at += 1 + hello.readUInt8(at);
    at += 2 + hello.readUInt16BE(at);
    at += 1 + hello.readUInt8(at);
    const end = at + 2 + hello.readUInt16BE(at);
    for (at += 2; at < end; ) {
      const type = hello.readUInt16BE(at);
      const length = hello.readUInt16BE(at + 2);
      // A list with its length, then the name's type and length.
      if (type === SERVER_NAME) return hello.toString('ascii', at + 9, at + 4 + length);
      at += 4 + length;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return undefined;
}
