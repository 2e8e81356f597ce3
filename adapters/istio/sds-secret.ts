import { messageType } from '../../src/grpc/load.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';

const TLS = 'envoy.extensions.transport_sockets.tls.v3';
const SPIFFE_VALIDATOR = `${TLS}.SPIFFECertValidatorConfig`;

export interface AnyMessage {
  readonly type_url: string;
  readonly value: Uint8Array;
}

interface DataSource {
  readonly specifier?: 'filename' | 'inline_bytes' | 'inline_string' | 'environment_variable';
  readonly filename?: string;
  readonly inline_bytes?: Uint8Array;
  readonly inline_string?: string;
}

interface WireSecret {
  readonly name: string;
  readonly type?: 'tls_certificate' | 'validation_context';
  readonly tls_certificate?: {
    readonly certificate_chain: DataSource | null;
    readonly private_key: DataSource | null;
    readonly private_key_provider: { readonly provider_name: string } | null;
  };
  readonly validation_context?: {
    readonly trusted_ca: DataSource | null;
    readonly custom_validator_config: { readonly name: string; readonly typed_config: AnyMessage | null } | null;
  };
}

interface WireValidator {
  readonly trust_domains: readonly { readonly name: string; readonly trust_bundle: DataSource | null }[];
}

export interface CertificateSecret {
  readonly kind: 'certificate';
  readonly name: string;
  readonly key: PrivateKey;
  readonly certificates: readonly Certificate[];
}

export interface BundleSecret {
  readonly kind: 'bundle';
  readonly name: string;
  /** Roots for workloads of this trust domain; empty when the bundle is for other domains. */
  rootsFor(trustDomain: string): readonly Certificate[];
}

export type Secret = CertificateSecret | BundleSecret;

/** Reads a file of the host on which the agent runs; undefined when it does not exist. */
export type ReadFile = (path: string) => Promise<string | undefined>;

/** Throws a MeshError that names the resource and never quotes it. `known` are certificates that may occur again. */
export async function readSecret(
  resource: AnyMessage,
  readFile: ReadFile,
  known: readonly Certificate[],
): Promise<Secret | undefined> {
  const secret = decode<WireSecret>('SDS resource', `${TLS}.Secret`, resource.value);
  const { name } = secret;
  const what = `secret "${name}"`;
  if (secret.tls_certificate && secret.type === 'tls_certificate') {
    const { certificate_chain: chain, private_key: key, private_key_provider: provider } = secret.tls_certificate;
    if (provider) {
      throw new MeshError(
        'ERR_MESH_UNSUPPORTED',
        `${what}: its key is held by a private key provider (${provider.provider_name}); turn off privateKeyProvider in this agent's ProxyConfig`,
        { retry: { afterMs: 300_000 } },
      );
    }
    const certificates = certificatesOf(what, await text(what, chain, readFile), known);
    return { kind: 'certificate', name, certificates, key: keyOf(what, await text(what, key, readFile)) };
  }
  if (secret.validation_context && secret.type === 'validation_context') {
    const { trusted_ca, custom_validator_config: custom } = secret.validation_context;
    if (custom?.typed_config) return bundleByDomain(name, custom.typed_config, readFile, known);
    const roots = certificatesOf(what, await text(what, trusted_ca, readFile), known);
    return { kind: 'bundle', name, rootsFor: () => roots };
  }
  return undefined;
}

async function bundleByDomain(
  name: string,
  config: AnyMessage,
  readFile: ReadFile,
  known: readonly Certificate[],
): Promise<BundleSecret> {
  const what = `secret "${name}"`;
  if (config.type_url.split('/').at(-1) !== SPIFFE_VALIDATOR) {
    throw new MeshError('ERR_MESH_UNSUPPORTED', `${what}: unknown validator ${config.type_url}; ask for plain roots`);
  }
  const { trust_domains } = decode<WireValidator>(what, SPIFFE_VALIDATOR, config.value);
  const roots = new Map<string, readonly Certificate[]>();
  for (const domain of trust_domains) {
    roots.set(domain.name, certificatesOf(what, await text(what, domain.trust_bundle, readFile), known));
  }
  return { kind: 'bundle', name, rootsFor: (domain) => roots.get(domain) ?? [] };
}

async function text(what: string, source: DataSource | null, readFile: ReadFile): Promise<string | Uint8Array> {
  switch (source?.specifier) {
    case 'inline_bytes':
      return source.inline_bytes ?? '';
    case 'inline_string':
      return source.inline_string ?? '';
    case 'filename': {
      const content = await readFile(source.filename ?? '');
      if (content !== undefined) return content;
      throw new MeshError(
        'ERR_MESH_CONFIG',
        `${what}: file ${source.filename} does not exist here or cannot be read; mount it`,
      );
    }
    case 'environment_variable':
      throw new MeshError('ERR_MESH_UNSUPPORTED', `${what}: it names an environment variable of the proxy`);
    default:
      throw bad(what, 'has an empty field');
  }
}

function certificatesOf(what: string, pem: string | Uint8Array, known: readonly Certificate[]): Certificate[] {
  try {
    return parseCertificates(pem, { known });
  } catch (cause) {
    throw bad(what, 'has certificates that cannot be read', cause);
  }
}

function keyOf(what: string, pem: string | Uint8Array): PrivateKey {
  try {
    return PrivateKey.fromPem(pem);
  } catch (cause) {
    throw bad(what, 'has a private key that cannot be read', cause);
  }
}

function decode<T extends object>(what: string, type: string, bytes: Uint8Array): T {
  try {
    return messageType<T>(type).decode(bytes);
  } catch (cause) {
    throw bad(what, `is not a ${type}`, cause);
  }
}

function bad(what: string, problem: string, cause?: unknown): MeshError {
  return new MeshError('ERR_MESH_BAD_RESPONSE', `${what} ${problem}; see the logs of the agent that serves it`, {
    cause,
  });
}
