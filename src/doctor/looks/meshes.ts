import { ALLOW_ANY } from '../../config/allow.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { KubeObject } from '../../core/object.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { MeshError } from '../../mesh/error.ts';
import { type ExaminedCheck, Examiner } from '../../mesh/examiner.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import { agentOf, type FoundAgent } from '../observed/agents.ts';
import { doctorHost } from '../observed/host.ts';
import { pooled, type Seen, type Tools, within } from './look.ts';
import { agentMay, mintRight, titleOf } from './rights.ts';

export interface MeshOptions {
  readonly adapters: readonly Adapter[];
  readonly agents: readonly FoundAgent[];
  /** Whether the user's own rights are checked if there is no agent. */
  readonly ownRights: boolean;
  /** Whether certificates may be requested. */
  readonly issue: boolean;
  /** Whether this process has the agent's files and sockets. */
  readonly here: boolean;
}

/** Meshes that are tried concurrently. */
const AT_ONCE = 4;

export interface Tried {
  readonly object: KubeObject;
  readonly certificate: MeshCertificate;
}

/** Tries the mesh of each MeshCertificate as the agent would; the issued certificate is discarded. */
export async function lookAtMeshes(tools: Tools, tried: readonly Tried[], options: MeshOptions): Promise<Seen[]> {
  const groups = new Map<string, Tried>();
  for (const one of tried) groups.set(keyOf(one), groups.get(keyOf(one)) ?? one);
  const seen = await pooled([...groups.values()], AT_ONCE, (one) => lookAtMesh(tools, one, options));
  return seen.flat();
}

/** Equal configurations need not be tried twice. */
const keyOf = ({ certificate: { metadata, spec } }: Tried): string => JSON.stringify([metadata.namespace, spec.mesh]);

async function lookAtMesh(tools: Tools, { object, certificate }: Tried, options: MeshOptions): Promise<Seen[]> {
  const { namespace = 'default' } = certificate.metadata;
  const { name, config } = certificate.spec.mesh;
  const adapter = options.adapters.find(({ mesh }) => mesh === name);
  const agent = agentOf(options.agents, object);
  const host = doctorHost({
    kube: tools.kube,
    clock: tools.clock,
    namespace,
    filesBelow: options.here ? (agent?.filesBelow ?? ['/var/run/secrets/meshcert']) : undefined,
    allow: agent?.allow ?? ALLOW_ANY,
    agentless: agent === undefined,
    mayMint: (account) => mayMint(tools, agent, account, options),
  });
  const checks: ExaminedCheck[] = [];
  const examiner = new Examiner({
    clock: tools.clock,
    limitMs: tools.limitMs,
    issue: options.issue,
    here: options.here,
    signal: tools.signal,
    tell: (check) => checks.push(check),
  });
  try {
    await using opened = adapter?.open(config, host);
    if (opened?.check) await opened.check(examiner);
    else examiner.skip(name, 'its adapter has no checks');
  } catch (error) {
    tools.signal.throwIfAborted();
    examiner.fail(name, error instanceof MeshError ? `${error.code}: ${error.message}` : String(error));
  }
  return checks.map((check) => seenOf(object, check));
}

/** Doctor mints only what the agent may mint: the objects determine the addresses that tokens are sent to. */
async function mayMint(
  tools: Tools,
  agent: FoundAgent | undefined,
  account: { readonly name: string; readonly namespace: string },
  { ownRights }: MeshOptions,
): Promise<string | undefined> {
  const title = `ServiceAccount ${account.namespace}/${account.name}`;
  if (!agent) {
    return ownRights
      ? undefined
      : `no agent was found that may mint a token for ${title}; with --agent none, doctor checks your own right`;
  }
  try {
    const may = await within(tools, (signal) => agentMay(tools, agent, mintRight(account), signal));
    return may ? undefined : `${titleOf(agent)} may not mint a token for ${title} (MC6008), so doctor does not either`;
  } catch (error) {
    return `whether ${titleOf(agent)} may mint a token for ${title} is not known: ${error instanceof Error ? error.message : String(error)}`;
  }
}

function seenOf(object: KubeObject, { code, state, message }: ExaminedCheck): Seen {
  const about = { code: 'MC6010', state, object, message: safeMessage(`${code}: ${message}`) } as const;
  if (state !== 'failed') return about;
  const severity = code.endsWith('-expiry') ? ({ severity: 'warning' } as const) : {};
  const named = /\bERR_[A-Z_]+/.exec(message)?.[0];
  return {
    ...about,
    ...severity,
    fix: named ? `follow the message; docs/errors.md explains ${named}` : 'follow the message',
  };
}
