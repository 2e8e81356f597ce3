import { mapStream, type StreamTransform } from '../../src/async/map-stream.ts';
import { type Share, type SharedHandle, sharing } from '../../src/async/sharing.ts';
import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { LastRead } from '../../src/mesh/last-read.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { ROOT_CONFIG_MAP } from './cluster/discover.ts';
import type { CaConfig } from './config.ts';

type RootsHost = Pick<Host, 'configMap' | 'clusterTrustBundle' | 'file' | 'namespace' | 'report' | 'share'>;
type Roots = readonly Certificate[];
/** The text of a file or a ClusterTrustBundle, or the data of a ConfigMap. */
type Content = string | Readonly<Record<string, string>> | undefined;

/** The roots that the CA is verified against, from the place in the configuration. */
export class CaRoots implements StreamTransform<Content, Roots> {
  readonly #host: RootsHost;
  readonly #config: CaConfig['root'];
  /** While it has followers: the parsed value, shared by all readers of the same place. */
  #parsed: SharedHandle<LastRead<string, Roots>> | undefined;
  #named: Roots | undefined;

  constructor(config: CaConfig['root'], host: RootsHost) {
    this.#host = host;
    this.#config = config;
  }

  /** `ConfigMap edge/istio-ca-root-cert`. */
  get place(): string {
    const { inline, file, clusterTrustBundle } = this.#config;
    const { name, namespace } = this.#configMap;
    if (inline !== undefined) return 'root.inline';
    if (clusterTrustBundle) return `ClusterTrustBundle ${clusterTrustBundle.name}`;
    return file !== undefined ? `file ${file}` : `ConfigMap ${namespace}/${name}`;
  }

  /** The last valid ones of `changes`, also after its end. */
  get named(): Roots | undefined {
    return this.#named;
  }

  /** The last valid ones while `changes` is followed, so that a renewal costs no read; otherwise read again. */
  async current(signal: AbortSignal): Promise<Roots> {
    if (this.#config.inline !== undefined) return this.#parse(this.#config.inline);
    if (this.#parsed && this.#named) return this.#named;
    for await (const content of this.#contents(signal)) return this.#readShared(this.#textOf(content));
    signal.throwIfAborted();
    throw new MeshError('ERR_MESH_CONFIG', `${this.place} could not be read; meshcert tries again`);
  }

  /** Now and at each change; unusable content is reported and skipped. */
  changes(signal: AbortSignal): AsyncIterable<Roots> {
    return mapStream(this.#contents(signal), this);
  }

  read(content: Content): Roots | undefined {
    try {
      const text = this.#textOf(content);
      this.#parsed ??= this.#shared();
      this.#named = this.#parsed.value.read(text, (pem) => this.#parse(pem));
      return this.#named;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#host.report(error);
      return undefined;
    }
  }

  over(): void {
    this.#parsed?.[Symbol.dispose]();
    this.#parsed = undefined;
  }

  /** Of all readers of the same place, such as a thousand MeshCertificates of one mesh. */
  #shared(): SharedHandle<LastRead<string, Roots>> {
    const share: Share = this.#host.share ?? sharing();
    return share(`istio roots in ${this.place}, ${this.#configMap.key}`, () => new LastRead());
  }

  #readShared(text: string): Roots {
    using parsed = this.#shared();
    return parsed.value.read(text, (pem) => this.#parse(pem));
  }

  get #configMap() {
    const { name = ROOT_CONFIG_MAP, key = 'root-cert.pem', namespace } = this.#config.configMap ?? {};
    return { name, key, namespace: namespace ?? this.#host.namespace };
  }

  #contents(signal: AbortSignal): AsyncIterable<Content> {
    const { file, clusterTrustBundle } = this.#config;
    if (clusterTrustBundle) return this.#host.clusterTrustBundle(clusterTrustBundle.name, signal);
    if (file !== undefined) return this.#host.file(file, signal);
    const { name, namespace } = this.#configMap;
    return this.#host.configMap({ name, namespace }, signal);
  }

  #textOf(content: Content): string {
    const { key } = this.#configMap;
    const text = typeof content === 'object' ? content[key] : content;
    if (text !== undefined) return text;
    const { file, clusterTrustBundle } = this.#config;
    const next = clusterTrustBundle
      ? 'does not exist: istiod writes it with ENABLE_CLUSTER_TRUST_BUNDLE_API=true, where the API server serves v1beta1 of it (--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true); set both, or correct root'
      : file !== undefined
        ? 'does not exist or cannot be read: mount it, or correct root.file'
        : `with key ${key} does not exist: istiod writes it into the namespaces that it discovers, and with ENABLE_CLUSTER_TRUST_BUNDLE_API=true a ClusterTrustBundle in its place; set root.clusterTrustBundle then, or root if it is elsewhere`;
    throw new MeshError('ERR_MESH_CONFIG', `${this.place} ${next}`);
  }

  #parse(text: string): Roots {
    try {
      return parseCertificates(text);
    } catch (cause) {
      throw new MeshError('ERR_MESH_CONFIG', `${this.place} has no certificates that can be read; correct it`, {
        cause,
      });
    }
  }
}
