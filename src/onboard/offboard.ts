import type { Clock } from '../async/clock.ts';
import { describe, type KubeObject, type ObjectRef, refOf } from '../core/object.ts';
import type { PublicationStatus } from '../core/status.ts';
import { EMISSARY_RESOURCES, MAPPING_FIELD_MANAGER } from '../gateway/emissary/spec/resources.ts';
import type { Kube } from '../kube/api.ts';
import { KubeError } from '../kube/transport/error.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { fields } from '../mesh/kube-object.ts';
import { observe } from './apply.ts';
import { chooseGateway } from './plan/choice.ts';
import type { DiffLine } from './plan/diff.ts';
import { discover } from './plan/findings.ts';
import { AGENT_NAME } from './plan/grants.ts';
import { backPatch, ONBOARD_FIELD_MANAGER } from './plan/moved.ts';
import {
  contextsOwned,
  type Leaving,
  type MappingRelease,
  mappingsUsing,
  type OffboardPlan,
  planOffboarding,
  refuseInUse,
} from './plan/offboard-plan.ts';
import { takeSnapshot } from './plan/snapshot.ts';
import type { Announce } from './say.ts';

export interface OffboardOptions {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly clock: Clock;
  readonly say: Announce;
  /** Namespace of the MeshCertificates; absent: that of the only gateway. */
  readonly namespace: string | undefined;
  /** Empty: all of them. */
  readonly names: readonly string[];
  readonly signal: AbortSignal;
}

/** Reads the cluster and plans; changes nothing. */
export async function lookAndPlanOff(options: OffboardOptions): Promise<OffboardPlan> {
  const { kube, signal, names } = options;
  const snapshot = await takeSnapshot(kube, options.adapters, signal);
  const namespace = options.namespace ?? chooseGateway(discover(snapshot, options.adapters)).env.namespace;
  const named = (apiVersion: string, kind: string): KubeObject => ({
    apiVersion,
    kind,
    metadata: { name: AGENT_NAME, namespace },
  });
  const grants = await observe(
    kube,
    [
      named('apps/v1', 'Deployment'),
      named('rbac.authorization.k8s.io/v1', 'RoleBinding'),
      named('rbac.authorization.k8s.io/v1', 'Role'),
      named('v1', 'ServiceAccount'),
    ],
    signal,
  );
  return planOffboarding(snapshot, namespace, names, [...grants.values()]);
}

/** Every object that is released or deleted, in order. Ends in a newline. */
export function showOffPlan({ leaving, grants }: OffboardPlan): string {
  const lines = leaving.flatMap(({ namespace, name, certificate, releases, inUse, contexts, secrets }) => [
    `  MeshCertificate ${namespace}/${name}`,
    ...inUse.map((mapping) => `    blocked by  ${describe(refOf(mapping))}, whose spec.tls another client set`),
    ...releases.flatMap((release) => [`    release  ${describe(refOf(release.mapping))}`, ...indented(release.diff)]),
    ...(certificate ? [`    delete   MeshCertificate ${namespace}/${name}`] : []),
    ...[...contexts, ...secrets].map((ref) => `    delete   ${describe(ref)}`),
    ...(secrets.length === 0 ? ['    keep     its Secrets (deletionPolicy is not Delete)'] : []),
  ]);
  return `Plan\n${[...lines, ...grants.map((ref) => `  delete   ${describe(ref)}`)].join('\n')}\n`;
}

const indented = (diff: readonly DiffLine[]): string[] => diff.map((line) => `        ${line}`);

/** How long the agent may take to act on a change before we continue without it: it may not run any more. */
const HEED_MS = 15_000;
const LOOK_MS = 500;
/** After the MeshCertificate is gone: an agent that still ran would restore its contexts. */
const REST_MS = 3000;
/** Secrets and TLSContexts never change within one batch of the gateway. */
const SPACING_MS = 2500;

/**
 * The reverse of onboarding: Mappings are released first, one by one and each in one write, then the MeshCertificate is
 * deleted, then the contexts that nothing names any more, and Secrets last. Stops before anything that a Mapping still
 * needs.
 */
export async function carryOutOff({ leaving, grants }: OffboardPlan, options: OffboardOptions): Promise<void> {
  const { kube, say, clock, signal } = options;
  for (const one of leaving) refuseInUse(one.inUse);
  for (const one of leaving) await leave(one, options);
  const secrets = leaving.flatMap((one) => one.secrets);
  if (secrets.length > 0) await clock.sleep(SPACING_MS, signal);
  for (const ref of [...secrets, ...grants]) await remove(kube, ref, say, signal);
}

async function leave(leaving: Leaving, options: OffboardOptions): Promise<void> {
  const { kube, say, clock, signal } = options;
  const { certificate, releases } = leaving;
  if (certificate && fields(certificate.spec).mappings !== undefined) await stopSetting(certificate, options);
  for (const release of releases) await letGo(release, options);
  const place = { namespace: leaving.namespace, name: leaving.name };
  refuseInUse(await using(kube, place, signal));
  if (certificate) {
    await remove(kube, refOf(certificate), say, signal);
    await clock.sleep(REST_MS, signal);
  }
  for (const context of await ownContexts(kube, place, signal)) await remove(kube, refOf(context), say, signal);
}

/** The agent must not set `tls` again on released Mappings. */
async function stopSetting(certificate: KubeObject, { kube, clock, say, signal }: OffboardOptions): Promise<void> {
  const ref = refOf(certificate);
  const changed = await kube.merge(ref, { spec: { mappings: null } }, { fieldManager: ONBOARD_FIELD_MANAGER }, signal);
  const end = clock.monotonic() + HEED_MS;
  say.waiting(`waiting for the agent to release the Mappings of ${certificate.metadata.name}`);
  while (clock.monotonic() < end) {
    const live = await kube.get(ref, signal);
    const status = live?.status as PublicationStatus | undefined;
    const seen = Math.max(0, ...(status?.conditions ?? []).map((one) => one.observedGeneration ?? 0));
    if (!live || seen >= (changed.metadata.generation ?? 0)) return;
    await clock.sleep(LOOK_MS, signal);
  }
  say.line('no agent responded; continuing without it');
}

/** The agent may write at the same time. */
const TRIES = 5;

async function letGo(release: MappingRelease, options: OffboardOptions): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await letGoOnce(release, options);
    } catch (error) {
      const conflict = error instanceof KubeError && error.code === 'ERR_KUBE_CONFLICT';
      if (!conflict || attempt >= TRIES) throw error;
      await options.clock.sleep(LOOK_MS, options.signal);
    }
  }
}

async function letGoOnce({ mapping, how }: MappingRelease, { kube, say, signal }: OffboardOptions): Promise<void> {
  const ref = refOf(mapping);
  const live = await kube.get(ref, signal);
  if (!live) return;
  const patch = how === 'back' ? backPatch(live) : undefined;
  if (patch) await kube.merge(ref, patch, { fieldManager: ONBOARD_FIELD_MANAGER }, signal);
  else {
    const { name, namespace, resourceVersion } = live.metadata;
    const metadata = { name, ...(namespace && { namespace }), ...(resourceVersion && { resourceVersion }) };
    const nothing = { apiVersion: live.apiVersion, kind: live.kind, metadata };
    await kube.apply(nothing, { fieldManager: MAPPING_FIELD_MANAGER }, signal);
  }
  say.line(`${describe(ref)} ${how === 'back' ? 'is restored' : 'no longer has the spec.tls of the agent'}`);
}

interface Place {
  readonly namespace: string;
  readonly name: string;
}

async function ownContexts(kube: Kube, { namespace, name }: Place, signal: AbortSignal): Promise<KubeObject[]> {
  const { items } = await kube.list(EMISSARY_RESOURCES.tlsContexts, { namespace }, signal);
  return contextsOwned(items, namespace, name);
}

/** Mappings that currently name one of its contexts, whatever was planned. */
async function using(kube: Kube, place: Place, signal: AbortSignal): Promise<KubeObject[]> {
  const contexts = await ownContexts(kube, place, signal);
  const lists = await Promise.all(
    [EMISSARY_RESOURCES.mappings, EMISSARY_RESOURCES.tcpMappings].map((resource) => kube.list(resource, {}, signal)),
  );
  return mappingsUsing(
    lists.flatMap(({ items }) => items),
    contexts,
  );
}

async function remove(kube: Kube, ref: ObjectRef, say: Announce, signal: AbortSignal): Promise<void> {
  if (await kube.delete(ref, {}, signal)) say.line(`${describe(ref)} deleted`);
}
