import { type Fields, type KubeObject, listOfFields, text } from './kube-object.ts';
import type { CheckedObjects } from './object-check.ts';
import { containerFields, type Mounted, mountedAt } from './workload.ts';

const IMAGE = /(?:^|\/)meshcert(?:[:@]|$)/;
/** Below which custom resources may name files unless `--files-below` says otherwise. */
export const FILES_BELOW = '/var/run/secrets/meshcert';

/** A workload that runs the agent, as its manifest describes it. */
export class AgentPod {
  readonly workload: KubeObject;
  readonly #container: Fields;
  readonly #argv: readonly string[];

  constructor(workload: KubeObject, container: Fields) {
    this.workload = workload;
    this.#container = container;
    this.#argv = argvOf(container);
  }

  /** `Deployment edge/meshcert`. */
  get title(): string {
    const { kind, metadata } = this.workload;
    return `${kind} ${metadata.namespace ?? 'default'}/${metadata.name}`;
  }

  /** The value of the first of these flags that is given. */
  flag(...names: readonly string[]): string | undefined {
    for (const [at, one] of this.#argv.entries()) {
      const named = names.find((name) => one === name || one.startsWith(`${name}=`));
      if (named) return one === named ? this.#argv[at + 1] : one.slice(named.length + 1);
    }
    return undefined;
  }

  /** Each value of a flag. */
  all(name: string): readonly string[] {
    return this.#argv.flatMap((one, at) => {
      if (one === name) return this.#argv[at + 1] ?? [];
      return one.startsWith(`${name}=`) ? one.slice(name.length + 1) : [];
    });
  }

  /** Whether one of these flags without a value is given. */
  on(...names: readonly string[]): boolean {
    return this.#argv.some((one) => names.includes(one) || names.includes(one.replace(/=true$/, '')));
  }

  get namespace(): string {
    return this.flag('--namespace', '-n') ?? this.workload.metadata.namespace ?? 'default';
  }

  /** Namespaces whose MeshCertificates it reconciles; undefined: all. */
  get namespaces(): readonly string[] | undefined {
    if (this.on('--all-namespaces', '-A')) return undefined;
    return this.flag('--watch-namespaces')?.split(',') ?? [this.namespace];
  }

  /** Directories below which custom resources may name files. */
  get filesBelow(): readonly string[] {
    return (this.flag('--files-below') ?? FILES_BELOW).split(',');
  }

  /** Where its container mounts a volume of this name. */
  mountPathOf(volume: string): string | undefined {
    const mount = listOfFields(this.#container.volumeMounts).find(({ name }) => name === volume);
    return text(mount?.mountPath)?.replace(/(?<!.\/)(?<=.)\/+$/, '');
  }

  /** The volume in which its container has this path. */
  mountedAt(path: string): Mounted | undefined {
    return mountedAt(this.workload, this.#container, path);
  }
}

/** The agents among the workloads: by image, or by command. */
export const agentPodsOf = (workloads: readonly KubeObject[]): readonly AgentPod[] =>
  workloads.flatMap((workload) => {
    if (workload.kind !== 'Deployment' && workload.kind !== 'DaemonSet') return [];
    const container = containerFields(workload).find(isAgent);
    return container ? [new AgentPod(workload, container)] : [];
  });

/** Those among the objects of a check that reconcile this MeshCertificate. */
export const agentsFor = (
  { all }: Pick<CheckedObjects, 'all'>,
  { metadata }: Pick<KubeObject, 'metadata'>,
): readonly AgentPod[] =>
  agentPodsOf([...all('Deployment'), ...all('DaemonSet')]).filter(
    ({ namespaces }) => namespaces?.includes(metadata.namespace ?? '') ?? true,
  );

/** Whether a DaemonSet runs this CSI driver, or none is known that could. */
export const mayRunDriver = ({ all }: Pick<CheckedObjects, 'all'>, driver: string): boolean => {
  const daemonSets = all('DaemonSet');
  return daemonSets.length === 0 || daemonSets.some(({ spec }) => JSON.stringify(spec).includes(driver));
};

const argvOf = (container: Fields): string[] =>
  [container.command, container.args].flat().filter((one) => typeof one === 'string');

function isAgent(container: Fields): boolean {
  const argv = argvOf(container);
  const ours = IMAGE.test(text(container.image) ?? '') || argv.some((one) => /(^|\/)meshcert(\.js)?$/.test(one));
  return ours && argv.includes('agent');
}
