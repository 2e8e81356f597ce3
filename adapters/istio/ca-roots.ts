import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import type { CaConfig } from './config.ts';

type RootsHost = Pick<Host, 'configMap' | 'file' | 'namespace' | 'report'>;

/** The roots that the CA is verified against, from where the configuration says. */
export class CaRoots {
  readonly #host: RootsHost;
  readonly #config: CaConfig['root'];
  #followers = 0;
  #followed: readonly Certificate[] | undefined;
  /** `ConfigMap emissary/istio-ca-root-cert`. */
  readonly place: string;

  constructor(config: CaConfig['root'], host: RootsHost) {
    this.#host = host;
    this.#config = config;
    const { name, namespace } = this.#configMap;
    this.place =
      config.inline !== undefined
        ? 'root.inline'
        : config.file !== undefined
          ? `file ${config.file}`
          : `ConfigMap ${namespace}/${name}`;
  }

  /** The last good ones while somebody follows the changes, so that a renewal costs no read; else read anew. */
  async current(signal: AbortSignal): Promise<readonly Certificate[]> {
    if (this.#followed) return this.#followed;
    for await (const text of this.#texts(signal)) return this.#read(text);
    signal.throwIfAborted();
    throw new MeshError('ERR_MESH_CONFIG', `${this.place} could not be read; it is tried again`);
  }

  /** Now and at each change; what cannot be used is reported and passed over. */
  async *changes(signal: AbortSignal): AsyncGenerator<readonly Certificate[]> {
    let last: string | undefined;
    this.#followers++;
    try {
      for await (const text of this.#texts(signal)) {
        if (text === last) continue;
        try {
          this.#followed = this.#read(text);
        } catch (error) {
          if (!(error instanceof MeshError)) throw error;
          this.#host.report(error);
          continue;
        }
        last = text;
        yield this.#followed;
      }
    } finally {
      this.#followers--;
      if (this.#followers === 0) this.#followed = undefined;
    }
  }

  get #configMap() {
    const { name = 'istio-ca-root-cert', key = 'root-cert.pem', namespace } = this.#config.configMap ?? {};
    return { name, key, namespace: namespace ?? this.#host.namespace };
  }

  async *#texts(signal: AbortSignal): AsyncGenerator<string | undefined> {
    const { inline, file } = this.#config;
    if (inline !== undefined) yield inline;
    else if (file !== undefined) yield* this.#host.file(file, signal);
    else {
      const { key, ...ref } = this.#configMap;
      for await (const data of this.#host.configMap(ref, signal)) yield data?.[key];
    }
  }

  #read(text: string | undefined): readonly Certificate[] {
    if (text === undefined) {
      const { key } = this.#configMap;
      const next =
        this.#config.file === undefined
          ? `with key ${key} does not exist: istiod writes it into the namespaces that it discovers; set root if it is elsewhere`
          : 'does not exist: mount it, or correct root.file';
      throw new MeshError('ERR_MESH_CONFIG', `${this.place} ${next}`);
    }
    try {
      return parseCertificates(text);
    } catch (cause) {
      throw new MeshError('ERR_MESH_CONFIG', `${this.place} has no certificates that can be read; correct it`, {
        cause,
      });
    }
  }
}
