import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { builtBundle } from '../../../scripts/built-bundle.ts';
import type { StatusEntry } from '../../../src/http/source.ts';
import { answers, freePorts } from '../servers/loopback.ts';
import { Daemon, type Server, scratchDir, serverOf } from '../servers/process.ts';

export interface AgentProcess extends Server {
  readonly url: string;
  readonly daemon: Daemon;
  /** As `/api/status` tells it. */
  statuses(): Promise<readonly StatusEntry[]>;
  metrics(): Promise<string>;
  /** Replaces the configuration file; the agent reads it by itself. */
  configure(documents: string): Promise<void>;
}

export interface AgentProcessOptions {
  readonly kubeconfig: string;
  /** YAML documents for `--config`; absent: MeshCertificate resources are watched. */
  readonly documents?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The bundle to run; absent: that of this tree. */
  readonly bundle?: string;
  /** The shell's redirection of its standard output, such as `>/dev/full`. Default: read here as its log. */
  readonly stdout?: string;
}

/** The agent as its users run it: its own process with its command line. */
export async function startAgentProcess(options: AgentProcessOptions): Promise<AgentProcess> {
  const dir = scratchDir('agent');
  const { http } = await freePorts('http');
  const url = `http://127.0.0.1:${http}`;
  const config = join(dir, 'mesh.yaml');
  if (options.documents !== undefined) await writeFile(config, options.documents);
  const shell = options.stdout === undefined ? [] : ['/bin/bash', '-c', `exec "$0" "$@" ${options.stdout}`];
  const [file = process.execPath, ...before] = [...shell, process.execPath];
  const daemon = await Daemon.start({
    name: 'agent',
    file,
    args: [
      ...before,
      options.bundle ?? (await builtBundle()),
      'agent',
      ...(options.documents === undefined ? [] : ['--config', config]),
      ...['--kubeconfig', options.kubeconfig, '--listen', `127.0.0.1:${http}`, '--log-level', 'debug'],
      ...(options.args ?? []),
    ],
    dir,
    ...(options.env ? { env: options.env } : {}),
    ready: () => answers(`${url}/healthz`),
    graceMs: 10_000,
  });
  return {
    ...serverOf(daemon, dir),
    url,
    daemon,
    async statuses() {
      const response = await fetch(`${url}/api/status`);
      const { certificates } = (await response.json()) as { certificates: readonly StatusEntry[] };
      return certificates;
    },
    metrics: async () => (await fetch(`${url}/metrics`)).text(),
    configure: (documents) => writeFile(config, documents),
  };
}

/** Whether its first MeshCertificate is published as desired. */
export async function isPublished(agent: AgentProcess): Promise<boolean> {
  const [entry] = await agent.statuses();
  return entry?.status.conditions.find(({ type }) => type === 'Published')?.status === 'True';
}

/** The code of the last failure of its first MeshCertificate. */
export const lastError = async (agent: AgentProcess): Promise<string | undefined> =>
  (await agent.statuses())[0]?.status.lastError?.code;
