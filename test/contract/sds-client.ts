import { type Channel, openChannel } from '../../src/grpc/channel.ts';
import type { DuplexStream } from '../../src/grpc/duplex.ts';
import { messageType } from '../../src/grpc/messages.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';

const SERVICE = 'envoy.service.secret.v3.SecretDiscoveryService';
const SECRET = 'envoy.extensions.transport_sockets.tls.v3.Secret';
const NODE = { id: 'sidecar~127.0.0.1~judge.default~default.svc.cluster.local' };

interface WireSecret {
  readonly name: string;
  readonly type: string;
  readonly tls_certificate?: { readonly certificate_chain: { readonly inline_bytes: Buffer } };
  readonly validation_context?: {
    readonly trusted_ca: { readonly inline_bytes: Buffer } | null;
    readonly custom_validator_config: { readonly name: string } | null;
  };
}

interface Response {
  readonly version_info: string;
  readonly nonce: string;
  readonly type_url: string;
  readonly resources: readonly { readonly type_url: string; readonly value: Buffer }[];
}

export interface Answer {
  readonly version: string;
  readonly nonce: string;
  /** Names of the resources, in their order. */
  readonly names: readonly string[];
  certificates(name: string): readonly Certificate[];
  secret(name: string): WireSecret | undefined;
}

/** An SDS client that ignores the protocol: it sends whatever a test wants. */
export class RawSds {
  readonly #channel: Channel;
  readonly #stream: DuplexStream<object, Response>;
  readonly #answers: AsyncIterator<Response>;

  constructor(socket: string) {
    this.#channel = openChannel({ address: `unix:${socket}`, tls: 'plaintext' });
    this.#stream = this.#channel.stream({ method: `${SERVICE}/StreamSecrets` });
    this.#answers = this.#stream[Symbol.asyncIterator]();
  }

  send(names: readonly string[], fields: object = {}): void {
    this.#stream.write({ node: NODE, resource_names: names, type_url: `type.googleapis.com/${SECRET}`, ...fields });
  }

  async next(): Promise<Answer> {
    const { value, done } = await this.#answers.next();
    if (done) throw new Error('the stream ended');
    return answerOf(value);
  }

  accept(names: readonly string[], { version, nonce }: Answer): void {
    this.send(names, { version_info: version, response_nonce: nonce });
  }

  async fetch(names: readonly string[]): Promise<Answer> {
    const request = { node: NODE, resource_names: names, type_url: `type.googleapis.com/${SECRET}` };
    const options = { method: `${SERVICE}/FetchSecrets`, deadlineMs: 10_000 };
    return answerOf(await this.#channel.unary<Response>(request, options));
  }

  async delta(): Promise<void> {
    const stream = this.#channel.stream<object, object>({ method: `${SERVICE}/DeltaSecrets` });
    stream.write({ node: NODE });
    for await (const _ of stream) return;
  }

  close(): void {
    this.#channel.close();
  }
}

function answerOf({ version_info, nonce, resources }: Response): Answer {
  const secrets = resources.map(({ value }) => messageType<WireSecret>(SECRET).decode(value));
  const secret = (name: string) => secrets.find((one) => one.name === name);
  return {
    version: version_info,
    nonce,
    names: secrets.map(({ name }) => name),
    secret,
    certificates(name) {
      const found = secret(name);
      const source = found?.tls_certificate?.certificate_chain ?? found?.validation_context?.trusted_ca;
      return source ? parseCertificates(source.inline_bytes) : [];
    },
  };
}
