import type { Clock } from '../async/clock.ts';
import { sharing } from '../async/sharing.ts';
import { type Allowed, type AllowList, ANY, allowsAudience, requireAllowed } from '../config/allow.ts';
import { mintToken, requireHarmless, requireUsable } from '../kube/account-token.ts';
import type { Kube } from '../kube/api.ts';
import { servedTrustBundles, trustBundleOf } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import { type FileError, isBelow, LARGEST_FILE, readFileBelow } from '../kube/transport/regular-file.ts';
import type { Host, TokenRequest } from '../mesh/adapter.ts';
import { type AgentPod, agentPodsOf } from '../mesh/cluster.ts';
import { MeshError } from '../mesh/error.ts';
import { NotSeen } from '../mesh/examiner.ts';
import { acceptToken } from '../mesh/input.ts';
import { silentLog } from '../mesh/log.ts';
import { fields, type KubeObject, type ObjectRef, text } from '../objects/objects.ts';

/** An agent as its workload describes it. */
export interface FoundAgent {
  readonly workload: KubeObject;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Namespaces whose MeshCertificates it reconciles; undefined: all. */
  readonly namespaces: readonly string[] | undefined;
  /** Whether it reconciles MeshCertificate resources, and not documents of a file. */
  readonly resources: boolean;
  /** Empty: it writes without a Lease. */
  readonly leases: readonly string[];
  readonly leaseName: string;
  readonly shards: number;
  /** Directories below which resources may name files. */
  readonly filesBelow: readonly string[];
  /** Its allow-lists for MeshCertificates. */
  readonly allow: AllowList;
}

/** The agents among the workloads: by image, or by command. */
export const findAgents = (objects: readonly KubeObject[], environmentFlags: readonly string[]): FoundAgent[] =>
  agentPodsOf(objects).map((pod) => describeAgent(pod, environmentFlags));

function describeAgent(pod: AgentPod, environmentFlags: readonly string[]): FoundAgent {
  const { workload, namespace, namespaces, filesBelow } = pod;
  const leaseName = pod.flag('--lease-name') ?? 'meshcert';
  const shards = Number(pod.flag('--shards') ?? 1) || 1;
  // As the agent does: where it may read every Secret, a list that is not given allows nothing.
  const mustList = pod.flag('--observe') === 'labels' || pod.on('--all-namespaces', '-A');
  const listed = (flag: string): Allowed => {
    const entries = pod.all(flag);
    return mustList || entries.length > 0 ? entries : ANY;
  };
  const single = pod.on('--no-leader-elect', '--once', '--dry-run');
  return {
    workload,
    namespace,
    serviceAccount: text(podSpec(workload).serviceAccountName) ?? 'default',
    namespaces,
    resources: pod.flag('--config') === undefined && !pod.on(...environmentFlags),
    leases: single ? [] : shards > 1 ? Array.from({ length: shards }, (_, at) => `${leaseName}-${at}`) : [leaseName],
    leaseName,
    shards,
    allow: {
      serviceAccounts: listed('--allow-service-account'),
      audiences: listed('--allow-audience'),
      addresses: listed('--allow-address'),
    },
    filesBelow,
  };
}

const podSpec = (workload: KubeObject) => fields(fields(fields(workload.spec).template).spec);

/** The agent that reconciles this MeshCertificate. */
export const agentOf = (agents: readonly FoundAgent[], { metadata }: KubeObject): FoundAgent | undefined =>
  agents.find(({ resources, namespaces }) => resources && (namespaces?.includes(metadata.namespace ?? '') ?? true));

/** Its name for the API server's authorizer. */
export const userOf = ({ namespace, serviceAccount, workload }: FoundAgent) => {
  const home = workload.metadata.namespace ?? namespace;
  return {
    user: `system:serviceaccount:${home}:${serviceAccount}`,
    groups: ['system:serviceaccounts', `system:serviceaccounts:${home}`, 'system:authenticated'],
  };
};

interface ExaminerHostOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  /** Namespace of the MeshCertificate. */
  readonly namespace: string;
  /** Directories whose files doctor may read; undefined: doctor does not run where the agent's files are. */
  readonly filesBelow: readonly string[] | undefined;
  /** Why no token may be minted for this account, or undefined. */
  mayMint(
    account: { readonly name: string; readonly namespace: string },
    signal: AbortSignal,
  ): Promise<string | undefined>;
  /** The agent's allow-lists for MeshCertificates. */
  readonly allow: AllowList;
  /** There is no agent whose allow-lists could be known. */
  readonly agentless: boolean;
}

/** What an adapter may use when doctor tries its mesh. What the user may not read is `NotSeen`, not a failure. */
export function doctorHost(options: ExaminerHostOptions): Host {
  const { kube, clock, namespace, filesBelow } = options;
  const read = async (path: string): Promise<string | undefined> => {
    if (!filesBelow) throw new NotSeen(`the file ${path} is in the agent's pod; run meshcert doctor there`);
    if (!isBelow(path, filesBelow)) {
      throw new MeshError(
        'ERR_MESH_CONFIG',
        `the file ${path} is not below ${filesBelow.join(' or ')}; the agent refuses it (--files-below)`,
      );
    }
    return readFileBelow(path, LARGEST_FILE, filesBelow).catch((cause: FileError) => {
      if (cause.isAbsent) return undefined;
      throw new MeshError(
        'ERR_MESH_CONFIG',
        `the file ${path} ${cause.message}; mount a regular file there, or name another`,
        { cause },
      );
    });
  };
  const judge = async (
    source: string,
    token: string,
    account: TokenRequest['serviceAccount'],
    signal: AbortSignal,
  ): Promise<string> => {
    if (allowsAudience(token, options.allow)) return token;
    await requireHarmless(kube, source, token, account, signal).catch((error: Error) => {
      throw options.agentless ? new NotSeen(error.message) : error;
    });
    return token;
  };
  return {
    clock,
    log: silentLog,
    random: Math.random,
    namespace,
    share: sharing(),
    report: () => {},
    async token(request: TokenRequest, signal) {
      const { audience, serviceAccount, file } = request;
      requireAllowed(request, options.allow);
      if (file !== undefined) {
        const text = await read(file);
        if (text === undefined) {
          throw new MeshError('ERR_MESH_TOKEN', `the token file ${file} is missing; mount a projected token there`);
        }
        return await judge(`the token in ${file}`, acceptToken(`the token file ${file}`, text), undefined, signal);
      }
      if (!serviceAccount)
        throw new MeshError('ERR_MESH_CONFIG', 'no token is configured; set serviceAccount or tokenFile');
      await requireUsable(kube, serviceAccount, namespace, signal).catch((error: unknown) => {
        const { cause } = error as { cause?: unknown };
        throw cause instanceof KubeError && cause.status === 403 ? new NotSeen(cause.message) : error;
      });
      const why = await options.mayMint(serviceAccount, signal);
      if (why !== undefined) throw new NotSeen(why);
      const token = await mint(kube, serviceAccount, audience, signal);
      return await judge(`a token for audience ${audience}`, token, serviceAccount, signal);
    },
    async *configMap({ name, namespace }, signal) {
      const found = await seen(kube, { apiVersion: 'v1', kind: 'ConfigMap', name, namespace }, signal);
      yield found && ((found.data ?? {}) as Readonly<Record<string, string>>);
      await aborted(signal);
    },
    async *clusterTrustBundle(name, signal) {
      const { apiVersion, kind } = await servedTrustBundles(kube, name, signal);
      yield trustBundleOf(await seen(kube, { apiVersion, kind, name }, signal));
      await aborted(signal);
    },
    async *file(path, signal) {
      yield await read(path);
      await aborted(signal);
    },
    async *files(paths, signal) {
      yield await Promise.all(paths.map(read));
      await aborted(signal);
    },
  };
}

async function seen(kube: Kube, ref: ObjectRef, signal: AbortSignal): Promise<KubeObject | undefined> {
  try {
    return await kube.get(ref, signal);
  } catch (error) {
    if (!(error instanceof KubeError) || error.status !== 403) throw error;
    throw new NotSeen(`you may not read it: ${error.message}`);
  }
}

async function mint(
  kube: Kube,
  account: { readonly name: string; readonly namespace: string },
  audience: string,
  signal: AbortSignal,
): Promise<string> {
  try {
    return await mintToken(kube, account, audience, signal);
  } catch (error) {
    if (!(error instanceof KubeError) || error.status !== 403) throw error;
    throw new NotSeen(
      `you may not mint a token for ServiceAccount ${account.namespace}/${account.name} (create serviceaccounts/token); MC6008 says whether the agent may`,
    );
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
