import type { ConfigMapRef, Host, TokenRequest } from '../../src/mesh/adapter.ts';
import { type Clock, systemClock } from '../../src/mesh/clock.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { Trigger } from '../../src/mesh/trigger.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import type { Linkerd } from '../../src/sandbox/linkerd/linkerd.ts';
import { controlPlaneObjects } from '../../src/sandbox/linkerd/objects.ts';
import { sandboxToken } from '../../src/sandbox/linkerd/token-review.ts';

type Data = Readonly<Record<string, string>>;

/** A Host over values in memory; what an adapter reports and asks is kept. */
export class MemoryHost implements Host {
  readonly clock: Clock;
  readonly log = silentLog;
  readonly random = () => 0.5;
  readonly namespace = 'emissary';
  readonly reports: Error[] = [];
  readonly asked: TokenRequest[] = [];
  readonly #configMaps = new Map<string, Data>();
  readonly #changes = new Set<Trigger>();
  /** Whose token `token` gives for a request. */
  owner = (request: TokenRequest) => request.serviceAccount ?? { name: 'meshcert', namespace: 'emissary' };
  token = async (request: TokenRequest): Promise<string> => {
    this.asked.push(request);
    return sandboxToken(this.owner(request), { audience: request.audience });
  };

  constructor(clock: Clock = systemClock) {
    this.clock = clock;
  }

  report(error: Error): void {
    this.reports.push(error);
  }

  setConfigMap(ref: ConfigMapRef, data: Data | undefined): void {
    const key = `${ref.namespace}/${ref.name}`;
    if (data) this.#configMaps.set(key, data);
    else this.#configMaps.delete(key);
    for (const change of this.#changes) change.fire();
  }

  /** The ConfigMaps of a sandbox's control plane as they are now. */
  install(linkerd: Linkerd): void {
    const { namespace, trustDomain, clusterDomain } = linkerd;
    for (const { metadata, data } of controlPlaneObjects({
      namespace,
      trustDomain,
      clusterDomain,
      bundle: linkerd.bundle(),
    })) {
      this.setConfigMap({ name: metadata.name, namespace }, data as Data);
    }
  }

  setRoots(linkerd: Linkerd, pem = formatCertificates(linkerd.bundle())): void {
    this.setConfigMap({ name: 'linkerd-identity-trust-roots', namespace: linkerd.namespace }, { 'ca-bundle.crt': pem });
  }

  async *configMap(ref: ConfigMapRef, signal: AbortSignal): AsyncGenerator<Data | undefined> {
    const change = new Trigger();
    this.#changes.add(change);
    try {
      for (;;) {
        yield this.#configMaps.get(`${ref.namespace}/${ref.name}`);
        await change.wait(signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#changes.delete(change);
    }
  }

  async *file(): AsyncGenerator<string | undefined> {
    yield undefined;
  }
}
