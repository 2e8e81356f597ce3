import { number } from './report.ts';

/** Bytes of one version in etcd, as the API server stores them: a publication of the sandbox with one intermediate. */
const SECRET = 3_100;
const MESH_CERTIFICATE = 3_900;
const LEASE = 500;
/** The stored objects of one identity: CA Secret, identity Secret, MeshCertificate, TLSContext. */
const PUBLICATION = 2_400 + SECRET + MESH_CERTIFICATE + 800;
/** The interval at which one shard writes its Lease; the middle of its spread. */
const LEASE_EVERY_S = 2.1;
/** Emissary's default for `AMBASSADOR_RECONFIG_MAX_DELAY`. */
const BATCH_S = 1;
const DAY_S = 86_400;
/** The middle of the default window, 60 to 66 %. */
const RENEWED_AT = 0.63;

export interface Costs {
  readonly rotations: number;
  /** Only of rotations, without the Lease. */
  readonly requests: number;
  readonly leaseWrites: number;
  readonly etcdBytes: number;
  /** Batches in which at least one Secret changed, if rotations occur independently of each other. */
  readonly reconfigures: number;
  readonly standingBytes: number;
}

/** The costs of a day of a fleet in its steady state, with one shard. */
export function costsOfDay(identities: number, leafLifetimeMs: number): Costs {
  const rotations = (identities * DAY_S * 1000) / (leafLifetimeMs * RENEWED_AT);
  const leaseWrites = DAY_S / LEASE_EVERY_S;
  return {
    rotations,
    requests: 2 * rotations,
    leaseWrites,
    etcdBytes: rotations * (SECRET + MESH_CERTIFICATE) + leaseWrites * LEASE,
    reconfigures: (DAY_S / BATCH_S) * -Math.expm1((-rotations / DAY_S) * BATCH_S),
    standingBytes: identities * PUBLICATION,
  };
}

export function costTable(sizes: readonly number[], leafLifetimeMs: number): string {
  const rows = sizes.map((identities) => {
    const { rotations, requests, leaseWrites, etcdBytes, reconfigures, standingBytes } = costsOfDay(
      identities,
      leafLifetimeMs,
    );
    const counts = [identities, rotations, requests, leaseWrites].map((count) => number(Math.round(count)));
    return `| ${[...counts, bytes(etcdBytes), number(Math.round(reconfigures)), bytes(standingBytes)].join(' | ')} |`;
  });
  return [
    '| identities | rotations | requests for them | writes of the Lease | written to etcd | reconfigurations of one gateway, at most | stored in etcd |',
    '|---|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}

function bytes(count: number): string {
  const units = ['B', 'KB', 'MB', 'GB'];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(count) / 3)));
  return `${number(Number((count / 1000 ** step).toPrecision(2)))} ${units[step]}`;
}
