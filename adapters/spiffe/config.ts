import { z } from 'zod';
import { cel, hostPort, isLoopback } from '../../src/mesh/schema.ts';
import { parseSpiffeId } from '../../src/pki/names.ts';

/** A socket address longer than this does not bind (sun_path, with its terminating zero). */
const LONGEST_SOCKET_PATH = 107;
const TRUST_DOMAIN = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
const NOT_A_DOMAIN = 'must be a DNS name in lower case';
const ONE_OF = 'exactly one of socket and address must be set';
const LOOPBACK = 'must be on the loopback interface: the private key travels over it in plaintext';

const socketPath = () => z.string().startsWith('/', 'must be an absolute path').max(LONGEST_SOCKET_PATH);
const spiffeId = () =>
  z
    .string()
    .max(2048)
    .refine((text) => parseSpiffeId(text) !== undefined, 'expected a SPIFFE ID, spiffe://<trust domain>/<path>');

const object = z
  .strictObject({
    plural: z
      .string()
      .max(63)
      .regex(/^[a-z0-9]+$/, 'must be the plural of a resource, such as deployments')
      .default('pods')
      .describe('Plural of the resource.'),
    group: z
      .string()
      .max(253)
      .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'must be an API group')
      .default('core')
      .describe('API group of the resource, "core" for that of pods.'),
    name: z
      .string()
      .max(253)
      .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'must be the name of an object')
      .describe('Name of the object, in the namespace of the MeshCertificate.'),
  })
  .describe('The object of the workload whose identity is requested.');

const broker = z
  .strictObject({
    socket: socketPath().optional().describe('Unix socket of the Broker API.'),
    address: hostPort('spire-agent.spire:8443').optional().describe('host:port of the Broker API.'),
    object,
    clientId: spiffeId()
      .optional()
      .describe("SPIFFE ID of the agent itself, by which it connects. Default: the Workload API's only one."),
    serverId: spiffeId()
      .optional()
      .describe("SPIFFE ID of the server. Default: any agent of SPIRE in the agent's trust domain."),
  })
  .refine(({ socket, address }) => (socket === undefined) !== (address === undefined), { error: ONE_OF })
  .meta(cel('has(self.socket) != has(self.address)', ONE_OF))
  .describe(
    'Experimental: may change in any release. Request the identity of another workload from the SPIFFE Broker API. The Workload API then serves only the identity by which the agent connects.',
  );

/** `spec.spiffe` of a MeshCertificate. */
export const spiffeConfig = z
  .strictObject({
    socket: socketPath()
      .optional()
      .describe('Unix socket of the Workload API, such as /run/spire/agent-sockets/spire-agent.sock.'),
    address: hostPort('127.0.0.1:8081')
      .refine(isLoopback, LOOPBACK)
      .optional()
      .describe('host:port of the Workload API over TCP, on the loopback interface.'),
    id: spiffeId()
      .optional()
      .describe('Exact SPIFFE ID of the identity. Default: the only one that the Workload API offers.'),
    hint: z
      .string()
      .min(1)
      .max(1024)
      .optional()
      .describe('Hint of the registration entry, where several identities are offered.'),
    trustDomain: z
      .string()
      .max(253)
      .regex(TRUST_DOMAIN, NOT_A_DOMAIN)
      .optional()
      .describe('Trust domain of the SPIFFE ID. Default: any.'),
    upstreamTrustDomain: z
      .string()
      .max(253)
      .regex(TRUST_DOMAIN, NOT_A_DOMAIN)
      .optional()
      .describe(
        'Federated trust domain of the upstreams. Its bundle is published in place of that of the identity, and never together with it. Default: upstreams are in the trust domain of the identity.',
      ),
    broker: broker.optional(),
  })
  .refine(({ socket, address }) => (socket === undefined) !== (address === undefined), { error: ONE_OF })
  .meta(cel('has(self.socket) != has(self.address)', ONE_OF))
  .describe('Identity from the SPIFFE Workload API, such as that of a SPIRE agent.');

export type SpiffeConfig = z.output<typeof spiffeConfig>;

export type BrokerConfig = NonNullable<SpiffeConfig['broker']>;

/** What a channel dials. */
export const addressOf = ({ socket, address }: Pick<SpiffeConfig, 'socket' | 'address'>): string =>
  socket === undefined ? (address ?? '') : `unix:${socket}`;
