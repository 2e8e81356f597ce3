import { mappingSpec } from '../gateway/emissary/reading/kinds.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Installation } from '../mesh/cluster.ts';
import type { GatewayFinding } from './discover/gateway.ts';
import { selectorLabels } from './plan/document.ts';
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
  const lines = [
    'Gateway',
    ...findings.gateways.flatMap((one) => gatewayLines(one, one === gateway && findings.gateways.length > 1)),
    '',
    'Meshes',
    ...findings.meshes.flatMap((one) => meshLines(one, adapters, width)),
    ...findings.remarks.map((line) => `  ${line}`),
    '',
    'Mappings',
    ...(verdicts.length === 0 ? ['  none that this gateway serves'] : verdicts.flatMap(mappingLines)),
    ...(findings.agents.length > 0 ? ['', `Agent: ${findings.agents.join(', ')}`] : []),
    ...section('Note', notes(findings, gateway)),
  ];
  return `${lines.join('\n')}\n`;
}

function gatewayLines(
  { kind, namespace, name, product, env, serviceAccount, sidecars }: GatewayFinding,
  chosen: boolean,
): string[] {
  const version = env.version === undefined ? '' : ` ${env.version}`;
  const watched = env.singleNamespace ? `watches only namespace ${env.namespace}` : 'watches all namespaces';
  const selector = env.labelSelector === undefined ? '' : `, objects with ${env.labelSelector}`;
  const injected = sidecars.length === 0 ? 'no sidecar' : `with the sidecar of ${sidecars.join(' and ')}`;
  return [
    `  ${namespace}/${name}  ${product}${version} (${kind})${chosen ? '  <- this one' : ''}`,
    `    ServiceAccount ${serviceAccount}, AMBASSADOR_ID ${env.ambassadorId}, ${watched}${selector}, ${injected}`,
  ];
}

function meshLines(installation: Installation, adapters: readonly Adapter[], width: number): string[] {
  const { mesh, problem } = installation;
  const [first = '', ...more] = adapters.find((one) => one.mesh === mesh)?.discover?.show(installation) ?? [];
  return [
    `  ${mesh.padEnd(width)}  ${first}`,
    ...more.map((line) => `    ${line}`),
    ...(problem === undefined ? [] : [`    but ${problem}`]),
  ];
}

function mappingLines({ upstream, outcome }: MoveVerdict): string[] {
  const { mapping, now, context, pods, membership } = upstream;
  const { namespace, name } = mapping.metadata;
  const how = now === 'context' ? `TLSContext ${context}` : now === 'https' ? 'TLS without identity' : 'plaintext';
  const behind = pods === 0 ? '' : `, ${pods} pod${pods === 1 ? '' : 's'} in ${membership ?? 'no mesh'}`;
  const head = `  ${namespace}/${name}  ${mappingSpec(mapping).service} (${how}${behind})`;
  switch (outcome.kind) {
    case 'done':
      return [head, `    already uses ${outcome.mesh} (TLSContext ${outcome.target.contextName})`];
    case 'move':
      return [head, `    can move to ${outcome.mesh} (TLSContext ${outcome.target.contextName})`];
    case 'stay':
      return [head, `    stays: ${outcome.code}: ${outcome.message}`];
  }
}

function notes({ unseen, agents }: Findings, { env, sidecars }: GatewayFinding): string[] {
  const expressed = Object.keys(selectorLabels(env.labelSelector)).length;
  const terms = (env.labelSelector ?? '').split(',').filter(Boolean).length;
  return [
    ...sidecars.map(
      (mesh) =>
        `the gateway's pods have the sidecar of ${mesh}, which would wrap the TLS of the gateway in its own: turn injection off for them, or exclude the ports of these upstreams`,
    ),
    ...(expressed < terms
      ? [
          `AMBASSADOR_LABEL_SELECTOR ${env.labelSelector} has more than equality requirements: add matching labels with --set labels.KEY=VALUE`,
        ]
      : []),
    ...(env.istioSecretDir
      ? ['AMBASSADOR_ISTIO_SECRET_DIR is set: its files are no longer needed once Mappings have moved']
      : []),
    ...(agents.length === 0
      ? ['no agent of meshcert was found: add one with --agent IMAGE, or run `meshcert agent` yourself']
      : []),
    ...unseen.map(({ what, message }) => `${what} could not be read: ${message}`),
  ];
}

const section = (title: string, lines: readonly string[]): string[] =>
  lines.length === 0 ? [] : ['', title, ...lines.map((line) => `  ${line}`)];
