import type { GatewayInstallation } from '../gateway/gateway.ts';

import type { Adapter } from '../mesh/adapter.ts';
import type { Installation } from '../mesh/cluster.ts';
import { printable } from '../mesh/secrets.ts';
import { describe, isKindOf, keyOf, type ObjectRef, refOf } from '../objects/objects.ts';
import { applySteps, type UsedObject, waitReady } from './apply.ts';
import type { GatewayFinding } from './discover.ts';
import { moveOne } from './move.ts';
import type { MoveVerdict, Moving } from './moves.ts';
import { type Findings, type OnboardOptions, type OnboardPlan, planOnboarding, refuseBlocked } from './plan.ts';
import { OnboardError, takeSnapshot } from './snapshot.ts';

/** Reads the cluster and plans; changes nothing. */
export async function lookAndPlan(options: OnboardOptions): Promise<OnboardPlan> {
  const { kube, preferences, signal } = options;
  const snapshot = await takeSnapshot(kube, options, signal);
  const planned = await planOnboarding(snapshot, preferences, new Map(), options, signal);
  const found = await Promise.all(planned.steps.map(({ object }) => kube.get(refOf(object), signal)));
  const existing = new Map(found.flatMap((object) => (object ? [[keyOf(refOf(object)), object]] : [])));
  return planOnboarding(snapshot, preferences, existing, options, signal);
}

/** Whether there is anything to write. */
export const isNothing = ({ steps, moves }: OnboardPlan): boolean =>
  moves.length === 0 && steps.every(({ action }) => action === 'none' || action === 'keep');

/** Lets the API server check each object and store nothing. */
export async function checkOnServer(plan: OnboardPlan, options: OnboardOptions): Promise<void> {
  await applySteps([...plan.steps, ...plan.moves], options, { dryRun: true });
}

/** Carries out the plan, and reports progress. Returns the routes that could not be moved. */
export async function carryOut(plan: OnboardPlan, options: OnboardOptions): Promise<MoveVerdict[]> {
  const { say, clock, signal } = options;
  refuseBlocked(plan);
  await applySteps(plan.steps, options, { dryRun: false });
  const certificates = plan.joined.map(({ certificate }) => certificate);
  await waitReady(certificates, usedObjects(plan), options);
  for (const certificate of certificates) say.line(`${describe(refOf(certificate))} is Ready`);
  const moving = plan.verdicts.filter((one): one is MoveVerdict<Moving> => one.outcome.kind === 'move');
  const { gateway, installation } = plan.gateway;
  if (moving.length > 0) await clock.sleep(Math.max(gateway.batchGapMs, installation.gapMs), signal);
  const left: MoveVerdict[] = [];
  for (const verdict of moving) {
    const { outcome, upstream } = verdict;
    const joined = plan.joined.find(({ mesh }) => outcome.mesh === mesh);
    if (!joined) continue;
    const title = describe(refOf(upstream.route));
    const { code, message } = await moveOne(upstream, outcome, joined, options);
    if (code === undefined) say.line(`${title} moved to ${outcome.mesh}${message ? `: ${message}` : ''}`);
    else {
      left.push(verdict);
      say.line(`${title} ${code}: ${message}`);
    }
  }
  return left;
}

/** Each object that a route will use and that can exist before. */
function usedObjects({ gateway: { gateway }, verdicts }: OnboardPlan): UsedObject[] {
  const { objectsFirst, standIns } = gateway.onboarding;
  if (!objectsFirst) return [];
  const [named] = standIns?.resources ?? [];
  const refs = verdicts.flatMap(({ outcome }) => {
    if (outcome.kind !== 'move') return [];
    const { needs = [outcome.target.object], objects = [] } = outcome.to ?? {};
    return [...needs, ...objects.filter(({ kind }) => kind === named?.kind).map(refOf)];
  });
  const unique = new Map(refs.map((ref): [string, ObjectRef] => [keyOf(ref), ref]));
  return [...unique.values()].flatMap((ref) => {
    const resource = gateway.resources.find(isKindOf(ref));
    if (resource === undefined) return [];
    return [ref.kind === named?.kind && standIns ? { ref, resource, pending: standIns.pending } : { ref, resource }];
  });
}

/** The error when routes were not moved; undefined when all were. */
export function leftBehind(left: readonly MoveVerdict[]): OnboardError | undefined {
  if (left.length === 0) return undefined;
  const names = left.map(({ upstream }) => describe(refOf(upstream.route))).join(', ');
  return new OnboardError(
    'ERR_ONBOARD_LEFT_BEHIND',
    `not moved: ${names}; see the reasons above. The others stay moved; run this again to try the rest`,
  );
}

/** What was found, for people. Ends in a newline. */
export function showFindings(
  findings: Findings,
  gateway: GatewayFinding,
  verdicts: readonly MoveVerdict[],
  adapters: readonly Adapter[],
): string {
  const width = Math.max(...adapters.map(({ mesh }) => mesh.length));
  const shown = findings.gateways.filter(({ installation }) => installation.problem === undefined);
  const lines = [
    'Gateway',
    ...shown.flatMap((one) => gatewayLines(one, one === gateway && shown.length > 1)),
    '',
    'Meshes',
    ...findings.meshes.flatMap((one) => meshLines(one, adapters, width)),
    ...findings.remarks.map((line) => `  ${line}`),
    '',
    gateway.gateway.onboarding.wording.routes,
    ...(verdicts.length === 0 ? ['  none that this gateway serves'] : verdicts.flatMap(routeLines)),
    ...(findings.agents.length > 0 ? ['', `Agent: ${findings.agents.join(', ')}`] : []),
    ...section('Note', notes(findings, gateway)),
  ];
  return `${lines.map(printable).join('\n')}\n`;
}

function gatewayLines({ gateway, installation, sidecars }: GatewayFinding, chosen: boolean): string[] {
  const { object, serviceAccount } = installation;
  const { namespace, name } = object.metadata;
  const injected = sidecars.length === 0 ? 'no sidecar' : `with the sidecar of ${sidecars.join(' and ')}`;
  const settings = [`ServiceAccount ${serviceAccount}`, ...gateway.onboarding.settings(installation), injected];
  return [
    `  ${namespace}/${name}  ${productOf(installation)} (${object.kind})${chosen ? '  <- this one' : ''}`,
    `    ${settings.join(', ')}`,
  ];
}

export const productOf = ({ product, version }: GatewayInstallation): string =>
  version === undefined ? product : `${product} ${version}`;

function meshLines(installation: Installation, adapters: readonly Adapter[], width: number): string[] {
  const { mesh, problem } = installation;
  const [first = '', ...more] = adapters.find((one) => one.mesh === mesh)?.discover?.show(installation) ?? [];
  return [
    `  ${mesh.padEnd(width)}  ${first}`,
    ...more.map((line) => `    ${line}`),
    ...(problem === undefined ? [] : [`    but ${problem}`]),
  ];
}

function routeLines({ upstream, outcome }: MoveVerdict): string[] {
  const { route, service, now, pods, membership } = upstream;
  const { namespace, name } = route.metadata;
  const behind = pods === 0 ? '' : `, ${pods} pod${pods === 1 ? '' : 's'} in ${membership ?? 'no mesh'}`;
  const head = `  ${namespace}/${name}  ${service} (${now}${behind})`;
  if (outcome.kind === 'stay') return [head, `    stays: ${outcome.code}: ${outcome.message}`];
  const { object } = outcome.target;
  const verb = outcome.kind === 'done' ? 'already uses' : 'can move to';
  return [head, `    ${verb} ${outcome.mesh} (${object.kind} ${object.name})`];
}

function notes({ unseen, agents }: Findings, { gateway, installation, sidecars }: GatewayFinding): string[] {
  return [
    ...sidecars.map(
      (mesh) =>
        `the gateway's pods have the sidecar of ${mesh}, which would wrap the TLS of the gateway in its own: turn injection off for them, or exclude the ports of these upstreams`,
    ),
    ...gateway.onboarding.notes(installation),
    ...(agents.length === 0
      ? ['no agent of meshcert was found: add one with --agent IMAGE, or run `meshcert agent` yourself']
      : []),
    ...unseen.map(({ what, message }) => `${what} could not be read: ${message}`),
  ];
}

const section = (title: string, lines: readonly string[]): string[] =>
  lines.length === 0 ? [] : ['', title, ...lines.map((line) => `  ${line}`)];
