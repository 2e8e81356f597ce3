import type { z } from 'zod';

/**
 * The longest texts of a MeshCertificate, in characters. They follow from Kubernetes and the file system, or are far
 * above what is used; without them one object could keep the agent busy for all others.
 */
export const LONGEST = {
  /** An object of Kubernetes, or a DNS name. */
  name: 253,
  /** A label of DNS, such as a namespace. */
  label: 63,
  /** Linux refuses longer paths. */
  path: 4096,
  /** SPIFFE limits an ID to 2,048 bytes. */
  id: 2048,
  /** An audience of a token is a name or a URL. */
  audience: 1024,
  /** A Go duration, each unit once. */
  duration: 64,
  /** More than a hundred roots in PEM. */
  pem: 262_144,
  /** A token of a mesh is a UUID, or a JWT. */
  token: 16_384,
} as const;

/** The most entries of a list or a map that a user writes. */
export const MOST = {
  namespaces: 1024,
  labels: 256,
  /** Ports, ids and the like, of which one object has a few. */
  few: 64,
  targets: 1024,
} as const;

/** A map with at most this many entries, for the agent and for the API server. */
export const atMost = <K extends z.core.$ZodRecordKey, V extends z.core.SomeType>(
  most: number,
  map: z.ZodRecord<K, V>,
): z.ZodRecord<K, V> =>
  map
    .refine((given) => Object.keys(given).length <= most, { error: `must have at most ${most} entries` })
    .meta({ maxProperties: most });
