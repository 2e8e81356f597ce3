import { Trigger } from '../async/trigger.ts';
import type { MeshCertificate, ProbeSpec } from '../config/schema/mesh-certificate.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { RouteDestination, RouteTarget } from '../gateway/gateway.ts';
import { readPublication } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import { reflect } from '../kube/reflector.ts';
import { RESOURCES } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import { peerNameText } from '../mesh/cluster.ts';
import { silentLog } from '../mesh/log.ts';
import {
  describe,
  type KubeObject,
  keyOf,
  type ObjectRef,
  preconditionOf,
  type Resource,
  refOf,
} from '../objects/objects.ts';

import { parseSpiffeId } from '../pki/names.ts';
import { type ProbeResult, probe } from '../probe/probe.ts';
import type { UpstreamFinding } from './discover.ts';
import { type Joined, type Moving, ONBOARD_FIELD_MANAGER } from './moves.ts';
import { type OnboardMeans, type OnboardOptions, type OnboardStep, titleOf } from './plan.ts';
import { OnboardError } from './snapshot.ts';

/**
 * Carries out what is to be created, changed or deleted, in order; stops at the first refusal. With `dryRun` the API
 * server checks everything and stores nothing.
 */
export async function applySteps(
  steps: readonly OnboardStep[],
  options: OnboardMeans,
  { dryRun }: { readonly dryRun: boolean },
): Promise<void> {
  const { kube, say, signal } = options;
  const defines = steps.some(({ action, object }) => action !== 'none' && isDefinition(object));
  for (const step of steps) {
    const { action, object } = step;
    if (action === 'none' || action === 'keep' || action === 'blocked') continue;
    let verdict = 'would be deleted';
    if (action !== 'delete') verdict = await applyOne(step, defines, dryRun, options);
    else if (!dryRun) {
      await kube.delete(refOf(object), preconditionOf(object), signal);
      verdict = 'deleted';
    }
    say.line(`${titleOf(step)} ${verdict}`);
  }
}

/** A new kind is served within a second or two after its definition was created. */
const DEFINITION_TRIES = 40;
const DEFINITION_PAUSE_MS = 250;

async function applyOne(
  step: OnboardStep,
  defines: boolean,
  dryRun: boolean,
  { kube, clock, signal }: OnboardMeans,
): Promise<string> {
  const object = step.patch ?? step.object;
  // What did not exist belongs to whoever has created it since.
  const force = step.action === 'change';
  for (let attempt = 1; ; attempt++) {
    try {
      await kube.apply(object, { fieldManager: ONBOARD_FIELD_MANAGER, force, dryRun }, signal);
      return dryRun ? 'would be applied' : 'applied';
    } catch (error) {
      const undefinedYet = error instanceof KubeError && error.status === 404 && defines && !isDefinition(object);
      if (!undefinedYet || attempt >= DEFINITION_TRIES) throw error;
      if (dryRun) return 'cannot be checked before its definition exists';
      await clock.sleep(DEFINITION_PAUSE_MS, signal);
    }
  }
}

const isDefinition = ({ kind }: KubeObject): boolean => kind === 'CustomResourceDefinition';

/** A controller that writes the status of an object changes its version too. */
const CONFLICT_TRIES = 5;

/** A change that reads what it changes, repeated after this pause while others write at the same time. */
export async function retryConflicts(
  change: () => Promise<void>,
  pauseMs: number,
  { clock, signal }: OnboardMeans,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await change();
    } catch (error) {
      const isConflict = error instanceof KubeError && error.code === 'ERR_KUBE_CONFLICT';
      if (!isConflict || attempt >= CONFLICT_TRIES) throw error;
      if (pauseMs > 0) await clock.sleep(pauseMs, signal);
    }
  }
}

/** An object of a gateway that a route will use, and its kind. */
export interface UsedObject {
  readonly ref: ObjectRef;
  readonly resource: Resource;
  /** What it lacks once it exists. */
  pending?(object: KubeObject): { readonly why: string } | undefined;
}

/** What a MeshCertificate still lacks, or undefined when it is published and this generation of it was judged. */
function lacks(object: KubeObject | undefined): string | undefined {
  if (!object) return 'to be read from the API server';
  const status = object.status as PublicationStatus | undefined;
  const conditions = status?.conditions ?? [];
  const of = (type: string) => conditions.find((one) => one.type === type);
  const published = of('Published');
  if (conditions.length === 0 || published === undefined) return 'its first status: is an agent running?';
  if ((published.observedGeneration ?? 0) < (object.metadata.generation ?? 0)) return 'its new spec to be read';
  const degraded = of('Degraded');
  for (const type of ['Published', 'Ready']) {
    const condition = of(type);
    if (condition?.status === 'True') continue;
    const why = degraded?.status === 'True' ? degraded.message : condition?.message;
    return `${type} (${condition?.reason ?? 'Unknown'}: ${why ?? 'no status yet'})`;
  }
  return undefined;
}

/**
 * Waits until these MeshCertificates are Ready and these objects exist, and reports what it waits for. Throws
 * ERR_ONBOARD_NOT_READY after the given time.
 */
export async function waitReady(
  certificates: readonly MeshCertificate[],
  objects: readonly UsedObject[],
  options: OnboardOptions,
): Promise<void> {
  await waitFor(
    certificates,
    (existing) => [
      ...certificates.flatMap((one) => {
        const lacking = lacks(existing.get(keyOf(refOf(one))));
        return lacking === undefined ? [] : [`${one.metadata.name} waits for ${lacking}`];
      }),
      ...objects.flatMap(({ ref, pending }) => {
        const found = existing.get(keyOf(ref));
        return found ? (pending?.(found)?.why ?? []) : [`${describe(ref)} is not there yet`];
      }),
    ],
    options,
    options.timeoutMs,
    objects,
  );
}

/**
 * Waits until nothing is pending, checked at each change of MeshCertificates, or of objects of these kinds, in their
 * namespaces. `pendingOf` is given what exists there, by key.
 */
export async function waitFor(
  certificates: readonly KubeObject[],
  pendingOf: (existing: ReadonlyMap<string, KubeObject>) => readonly string[],
  { kube, clock, random, say, signal }: OnboardOptions,
  timeoutMs: number,
  objects: readonly UsedObject[] = [],
): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const changed = new Trigger();
  const places = [
    ...certificates.map((one) => ({ resource: RESOURCES.meshCertificates, namespace: one.metadata.namespace ?? '' })),
    ...objects.map(({ ref, resource }) => ({ resource, namespace: ref.namespace ?? '' })),
  ];
  const unique = new Map(places.map((one) => [`${one.resource.plural} ${one.namespace}`, one]));
  const followed = [...unique.values()].map(({ resource, namespace }) =>
    reflect(kube, resource, { namespace }, { clock, random, log: silentLog, signal: either }),
  );
  const pumps = followed.map(async (reflector) => {
    for await (const _ of reflector.changes()) changed.fire();
  });
  let late = false;
  clock.sleep(timeoutMs, either).then(
    () => {
      late = true;
      changed.fire();
    },
    () => {},
  );
  try {
    for (;;) {
      await changed.wait(either);
      const pending = followed.every(({ isSynced }) => isSynced)
        ? pendingOf(new Map(followed.flatMap((one) => [...one.items()])))
        : ['reading the current state from the API server'];
      if (pending.length === 0) return;
      if (late) {
        const message = `not there after ${Math.round(timeoutMs / 1000)} s: ${pending.join('; ')}; run \`meshcert status\` and read the agent's log, then run this again`;
        throw new OnboardError('ERR_ONBOARD_NOT_READY', message);
      }
      for (const text of pending) say.waiting(text);
    }
  } finally {
    stop.abort(new Error('waited enough'));
    await Promise.allSettled(pumps);
  }
}

/** Presents the published pair to all upstreams of a route; the first that does not accept it decides. */
export async function tryAll(
  joined: Joined,
  { target, to }: Moving,
  upstream: UpstreamFinding,
  options: OnboardOptions,
): Promise<ProbeResult> {
  if (!to) return tryUpstream(joined, target, upstream, options);
  const published = await publishedPair(joined.certificate, options.kube, options.signal);
  const results = await Promise.all(to.destinations.map((one) => tryDestination(one, joined, published, options)));
  const failed = results.find(({ code }) => code !== 'accepted');
  return failed ?? { code: 'accepted', message: '', peer: results.flatMap(({ peer }) => peer) };
}

/** What is published for a MeshCertificate now. */
export async function publishedPair(
  { metadata: { namespace = '' }, spec }: MeshCertificate,
  kube: Kube,
  signal: AbortSignal,
) {
  const secret = (name: string) => kube.get({ apiVersion: 'v1', kind: 'Secret', namespace, name }, signal);
  const found = await Promise.all([secret(spec.caSecretName), secret(spec.secretName)]);
  return readPublication(
    spec,
    found.filter((one) => one !== undefined),
  );
}

const unpublished = (address: string): ProbeResult => ({
  code: 'ERR_PROBE_REFUSED',
  message: `no pair for ${address} is published yet`,
  peer: [],
});

/** Checks what a gateway itself will check that verifies its upstreams. */
async function tryDestination(
  { address, sni, names = [] }: RouteDestination,
  { view: { tls } }: Joined,
  { identity, bundle }: Awaited<ReturnType<typeof publishedPair>>,
  { clock, connectTo, signal }: OnboardOptions,
): Promise<ProbeResult> {
  if (!identity) return unpublished(address);
  const own = identity.chain[0]?.names.uris[0] ?? '';
  const dialled = connectTo.get(address) ?? address;
  const result = await probe({ address: dialled, sni }, identity, bundle, { clock, tls, signal });
  const expected = names.flatMap((name) => peerNameText(name, own) ?? []);
  const message = result.message.replaceAll(dialled, address);
  if (result.code !== 'accepted' || expected.some((one) => result.peer.includes(one))) return { ...result, message };
  const presents = `${address} presents ${result.peer.join(', ') || 'no name'}, not ${expected.join(' or ')}`;
  return { ...result, code: 'ERR_PROBE_UPSTREAM_ID', message: presents };
}

/**
 * Presents the published pair to the upstream as the gateway would, and checks the upstream's identity, which the
 * gateway cannot.
 */
async function tryUpstream(
  joined: Joined,
  target: RouteTarget,
  upstream: UpstreamFinding,
  options: OnboardOptions,
): Promise<ProbeResult> {
  const { kube, adapters, clock, connectTo, signal } = options;
  const { certificate, gateway } = joined;
  const { spec } = certificate;
  const { onboarding } = gateway;
  const [{ identity, bundle }, used] = await Promise.all([
    publishedPair(certificate, kube, signal),
    onboarding.objectsFirst ? kube.get(target.object, signal) : undefined,
  ]);
  const { address } = upstream;
  if (!identity || (onboarding.objectsFirst && !used)) return unpublished(address);
  const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
  const uri = identity.chain[0]?.names.uris[0];
  const { sni, ...tls } = onboarding.client(spec.gateways[gateway.kind], used, target.id);
  const probeSpec: ProbeSpec = {
    address: connectTo.get(address) ?? address,
    sni,
    id: adapter?.expectedPeer?.({
      sni,
      accounts: upstream.accounts,
      trustDomain: parseSpiffeId(uri ?? '')?.trustDomain,
    }),
  };
  const result = await probe(probeSpec, identity, bundle, { clock, tls, signal });
  // Messages name the address in the route, even if another one was dialled.
  return { ...result, message: result.message.replaceAll(probeSpec.address, address) };
}
