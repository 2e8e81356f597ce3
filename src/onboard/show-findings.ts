import type { GatewayInstallation } from '../gateway/onboarding.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Installation } from '../mesh/cluster.ts';
import { printable } from '../mesh/secrets.ts';
import type { GatewayFinding } from './discover/gateway.ts';
import type { Findings } from './plan/findings.ts';
import type { MoveVerdict } from './plan/moves.ts';

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
