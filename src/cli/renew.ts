import { systemClock } from '../async/clock.ts';
import { limitedTo } from '../async/linked-signal.ts';
import { API_VERSION, KIND } from '../config/schema/mesh-certificate.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Kube, Selection } from '../kube/api.ts';
import { readLease } from '../kube/lease.ts';
import { reflect } from '../kube/reflector.ts';
import { RESOURCES } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import { silentLog } from '../mesh/log.ts';
import { formatDuration } from '../mesh/schema.ts';
import { printable } from '../mesh/secrets.ts';
import { type KubeObject, RENEW_ANNOTATION } from '../objects/objects.ts';
import { bool, duration, text, UsageError, type Values } from './flags.ts';
import { CLUSTER_FLAGS, clusterOf, declare, type Io, namespaceOf } from './program.ts';
import { describeFailure, humanDuration } from './terminal.ts';

const flags = {
  all: bool('--all', 'All MeshCertificates of the namespace'),
  allNamespaces: bool('-A, --all-namespaces', 'In all namespaces; with --all or --selector'),
  selector: text('-l, --selector <query>', 'Those with these labels, such as team=web'),
  wait: bool('--wait', 'Wait until the new certificates are published; fail if one is not'),
  timeout: duration('--timeout <duration>', 'How long to wait with --wait', '2m', '1s'),
  ...CLUSTER_FLAGS,
};

export type RenewFlags = Values<typeof flags>;

export const renew = declare({
  name: 'renew',
  description:
    'Requests a new certificate from the agent now, regardless of its schedule. The command sets the annotation ' +
    `${RENEW_ANNOTATION} on the MeshCertificate. With --wait it fails when no agent acts on the request.`,
  parameters: [
    {
      name: 'name',
      description: 'MeshCertificates',
      variadic: true,
      completes: 'certificates',
      replacedBy: ['all', 'selector'],
    },
  ],
  flags,
  examples: [
    { does: 'Renew one, and wait for the new certificate', line: 'meshcert renew mesh -n emissary --wait' },
    { does: 'Renew all with a label, in all namespaces', line: 'meshcert renew -A -l team=web' },
    { does: 'Renew all of a namespace', line: 'meshcert renew --all -n emissary' },
  ],
  run: async ({ flags, args }, io) => runRenew(flags, args, io),
});

/** A Lease that was not renewed for this long has no agent behind it, even if clocks differ by some seconds. */
const DEAD_MS = 60_000;

type Status = Partial<PublicationStatus> | undefined;

/** A MeshCertificate whose renewal was requested. */
interface RenewRequest {
  readonly namespace: string;
  readonly name: string;
  /** The previous leaf. */
  readonly fingerprint: string | undefined;
}

const place = ({ namespace, name }: RenewRequest): string => `${namespace}/${name}`;

export async function runRenew(flags: RenewFlags, names: readonly string[], io: Io): Promise<number> {
  const many = flags.all || flags.selector !== undefined;
  if (!many && names.length === 0) throw new UsageError('name MeshCertificates, or use --all or --selector');
  if (flags.allNamespaces && !many) throw new UsageError('--all-namespaces needs --all or --selector');
  const namespace = flags.allNamespaces ? undefined : namespaceOf(flags, io);
  const kube = clusterOf(flags, io);
  try {
    const selection = { namespace, labelSelector: flags.selector };
    const found = many ? await listed(kube, selection, io) : await named(kube, namespace ?? '', names, io);
    const asked = new Date(systemClock.now()).toISOString();
    const requests: RenewRequest[] = [];
    for (const { metadata, status } of found) {
      const request = {
        name: metadata.name,
        namespace: metadata.namespace ?? '',
        fingerprint: (status as Status)?.fingerprint,
      };
      const ref = { apiVersion: API_VERSION, kind: KIND, namespace: request.namespace, name: request.name };
      const patch = { metadata: { annotations: { [RENEW_ANNOTATION]: asked } } };
      await kube.merge(ref, patch, { fieldManager: 'meshcert-cli' }, io.signal);
      requests.push(request);
      io.stdout.write(`${printable(`meshcertificate.meshcert.dev/${request.name} renewal requested`)}\n`);
    }
    await warnOfAbsentAgents(kube, requests, io);
    return flags.wait ? await waitFor(kube, requests, selection, { asked, timeoutMs: flags.timeout }, io) : 0;
  } finally {
    kube.close();
  }
}

async function listed(kube: Kube, selection: Selection, io: Io): Promise<readonly KubeObject[]> {
  const { items } = await kube.list(RESOURCES.meshCertificates, selection, io.signal);
  if (items.length > 0) return items;
  const where = selection.namespace === undefined ? 'in any namespace' : `in namespace ${selection.namespace}`;
  const which = selection.labelSelector === undefined ? '' : ` with labels ${selection.labelSelector}`;
  throw new Error(`there is no MeshCertificate${which} ${where}`);
}

/** All named ones, or an error before anything is requested. */
async function named(kube: Kube, namespace: string, names: readonly string[], io: Io): Promise<readonly KubeObject[]> {
  const refs = [...new Set(names)].map((name) => ({ apiVersion: API_VERSION, kind: KIND, namespace, name }));
  return Promise.all(
    refs.map(async (ref) => {
      const found = await kube.get(ref, io.signal);
      if (!found) throw new Error(`MeshCertificate ${namespace}/${ref.name} does not exist; see -n for the namespace`);
      return found;
    }),
  );
}

/** Warns only if the Lease is visible: the agent's Lease may have another name, or be in another namespace. */
async function warnOfAbsentAgents(kube: Kube, requests: readonly RenewRequest[], io: Io): Promise<void> {
  for (const namespace of new Set(requests.map((request) => request.namespace))) {
    const ref = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace, name: 'meshcert' };
    const lease = await kube.get(ref, io.signal).catch((error) => {
      if (error instanceof KubeError && error.status === 403) return undefined;
      throw error;
    });
    if (!lease) continue;
    const silentMs = systemClock.now() - (readLease(lease).renewedAt ?? 0);
    if (silentMs < DEAD_MS) continue;
    io.stderr.write(
      `Warning: no agent has renewed Lease ${namespace}/meshcert for ${humanDuration(silentMs)}; ` +
        'nothing is renewed until one runs.\n',
    );
  }
}

interface RenewDeadline {
  /** The value of the annotation. */
  readonly asked: string;
  readonly timeoutMs: number;
}

async function waitFor(
  kube: Kube,
  requests: readonly RenewRequest[],
  selection: Selection,
  { asked, timeoutMs }: RenewDeadline,
  io: Io,
): Promise<number> {
  const late = new Error('the time is up');
  using limit = limitedTo(systemClock, timeoutMs, () => late, io.signal);
  const pending = new Map(requests.map((request) => [place(request), request]));
  const statuses = new Map<string, Status>();
  io.stderr.write(`Waiting up to ${formatDuration(timeoutMs)} for the new certificates.\n`);
  const onError = (error: Error) => void io.stderr.write(`${printable(describeFailure(error))}\n`);
  const means = { clock: systemClock, random: Math.random, log: silentLog, signal: limit.signal, onError };
  const reflector = reflect(kube, RESOURCES.meshCertificates, selection, means);
  try {
    for await (const _ of reflector.changes()) {
      for (const { metadata, status } of reflector.items().values()) {
        const key = `${metadata.namespace}/${metadata.name}`;
        const request = pending.get(key);
        if (!request) continue;
        const seen = status as Status;
        statuses.set(key, seen);
        if (seen?.renewRequest !== asked || seen.fingerprint === request.fingerprint) continue;
        pending.delete(key);
        const { name } = request;
        io.stdout.write(`${printable(`meshcertificate.meshcert.dev/${name} renewed, valid until ${seen.notAfter}`)}\n`);
      }
      if (pending.size === 0) return 0;
    }
  } finally {
    limit.abort(new Error('no longer waiting'));
    await reflector.ended;
  }
  if (io.signal.aborted) return 130;
  for (const request of pending.values()) {
    const key = place(request);
    io.stderr.write(`${printable(`meshcert renew: ${key} was not renewed: ${reason(statuses.get(key), asked)}`)}\n`);
  }
  return 1;
}

function reason(status: Status, asked: string): string {
  const { lastError, held } = status ?? {};
  // Times in a status are whole seconds.
  if (lastError && Date.parse(lastError.time) + 1000 > Date.parse(asked))
    return `${lastError.code}: ${lastError.message}`;
  if (held) return `the new leaf is held back until ${held.until}: ${held.reason}`;
  return 'no agent acted on the request. Check that an agent runs and watches this namespace';
}
