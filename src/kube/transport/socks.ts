import { once } from 'node:events';
import { isIP, type Socket } from 'node:net';
import { ipBytes } from '../../pki/names.ts';

const VERSION = 5;
const CONNECT = 1;
const ANONYMOUS = 0;
const PASSWORD = 2;

const ADDRESS = { ipv4: 1, name: 3, ipv6: 4 } as const;
/** Of a name or a password: their length is one byte. */
const LONGEST = 255;

/** RFC 1928, section 6. */
const REPLIES: readonly string[] = [
  'connected',
  'general failure',
  'not allowed by its rules',
  'network unreachable',
  'host unreachable',
  'connection refused',
  'time to live expired',
  'command not supported',
  'address type not supported',
];

/**
 * Asks the SOCKS5 proxy at the other end of the socket to connect to the target (RFC 1928, RFC 1929), by name, so that
 * the proxy resolves it. Its answer in our words: `connected`, `credentials` when it does not accept them or needs some,
 * or why it did not connect. Throws what the socket throws.
 */
export async function throughSocks(
  socket: Socket,
  target: { readonly host: string; readonly port: number },
  { user, password }: { readonly user: string; readonly password: string },
): Promise<string> {
  const cut = () => socket.destroy(ended());
  socket.once('end', cut);
  const methods = user === '' ? [ANONYMOUS] : [ANONYMOUS, PASSWORD];
  socket.write(Buffer.from([VERSION, methods.length, ...methods]));
  const [version, method = 0] = await read(socket, 2);
  if (version !== VERSION) return 'it does not speak SOCKS5';
  if (!methods.includes(method)) return 'credentials';
  if (method === PASSWORD) {
    socket.write(Buffer.concat([Buffer.from([1]), sized(user), sized(password)]));
    const [, status] = await read(socket, 2);
    if (status !== 0) return 'credentials';
  }
  const port = Buffer.alloc(2);
  port.writeUInt16BE(target.port);
  socket.write(Buffer.concat([Buffer.from([VERSION, CONNECT, 0]), addressOf(target.host), port]));
  const [, reply = 0, , form] = await read(socket, 4);
  if (reply !== 0) return REPLIES[reply] ?? `reply ${reply}`;
  // The address from which the proxy connects.
  const [length = 0] = form === ADDRESS.name ? await read(socket, 1) : [form === ADDRESS.ipv6 ? 16 : 4];
  await read(socket, length + 2);
  socket.off('end', cut);
  return 'connected';
}

function addressOf(host: string): Buffer {
  const version = isIP(host);
  if (version === 0) return Buffer.concat([Buffer.from([ADDRESS.name]), sized(host)]);
  return Buffer.concat([Buffer.from([version === 4 ? ADDRESS.ipv4 : ADDRESS.ipv6]), ipBytes(host)]);
}

function sized(text: string): Buffer {
  const bytes = Buffer.from(text).subarray(0, LONGEST);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

/** Exactly as many bytes; what follows belongs to the target. */
async function read(socket: Socket, size: number): Promise<Buffer> {
  for (;;) {
    const bytes: Buffer | null = socket.read(size);
    if (bytes?.length === size) return bytes;
    // At the end of the stream, fewer bytes than asked for.
    if (bytes || socket.destroyed) throw socket.errored ?? ended();
    await once(socket, 'readable');
  }
}

const ended = () => Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' });
