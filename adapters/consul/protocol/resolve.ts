import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { unlessAborted } from '../../../src/async/linked-signal.ts';
import { MeshError } from '../../../src/mesh/error.ts';

export interface Server {
  /** What is dialled, `host:port`. */
  readonly address: string;
  /** For messages: as configured, with the IP address where there are several. */
  readonly name: string;
  /** The name that its certificate must have; absent: the host of the address. */
  readonly serverName?: string | undefined;
}

/** All IP addresses of a host. */
export type Lookup = (host: string) => Promise<readonly string[]>;

const systemLookup: Lookup = async (host) => (await lookup(host, { all: true })).map(({ address }) => address);

/**
 * Every server behind these addresses: a headless Service has one name for all, and only a client that distinguishes
 * them can leave one that has no capacity.
 */
export async function resolveServers(
  addresses: readonly string[],
  serverName: string | undefined,
  signal: AbortSignal,
  find: Lookup = systemLookup,
): Promise<readonly Server[]> {
  const found: Server[] = [];
  let failure: unknown;
  for (const address of addresses) {
    try {
      found.push(...(await resolveOne(address, serverName, signal, find)));
    } catch (error) {
      signal.throwIfAborted();
      failure = error;
    }
  }
  if (found.length > 0) return found;
  const why = failure instanceof Error ? failure.message : String(failure);
  throw new MeshError('ERR_MESH_UNREACHABLE', `Consul servers ${addresses.join(', ')}: ${why}; check grpc.addresses`, {
    cause: failure,
  });
}

async function resolveOne(
  address: string,
  serverName: string | undefined,
  signal: AbortSignal,
  find: Lookup,
): Promise<Server[]> {
  const at = address.lastIndexOf(':');
  const host = address.slice(0, at).replace(/^\[|\]$/g, '');
  const port = address.slice(at + 1);
  if (isIP(host)) return [{ address, name: address, serverName }];
  const ips = [...new Set(await unlessAborted(find(host), signal))];
  if (ips.length < 2) return [{ address, name: address, serverName }];
  return ips.map((ip) => ({
    address: `${isIP(ip) === 6 ? `[${ip}]` : ip}:${port}`,
    name: `${address} (${ip})`,
    serverName: serverName ?? host,
  }));
}
