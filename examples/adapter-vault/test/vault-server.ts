import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const CA_EXTENSIONS = 'basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n';
const LEAF_EXTENSIONS =
  'basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n';

interface Answer {
  readonly status: number;
  readonly body: object;
}

/**
 * The two requests of Vault's HTTP API that the adapter makes, with its own paths and fields, over TLS. The openssl
 * command is the certificate authority: a root, an intermediate, and what they sign.
 */
export class VaultServer {
  /** PEM of what verifies the server itself. */
  readonly ca: string;
  readonly #directory: string;
  readonly #server: Server;
  /** Answers under way. */
  readonly #answers = new Set<Promise<unknown>>();
  /** Who may log in: the token that a ServiceAccount shows. */
  accepts: (jwt: string) => boolean = () => true;
  /** It answers nothing but this status. */
  broken: number | undefined;
  logins = 0;
  readonly clientToken = 'hvs.example-client-token';

  private constructor(directory: string, ca: string, key: string, certificate: string) {
    this.#directory = directory;
    this.ca = ca;
    this.#server = createServer({ key, cert: certificate }, (request, response) => {
      let text = '';
      request.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      request.on('end', () => {
        const answer = this.#answer(request.url ?? '', request.headers['x-vault-token'], text).then(
          ({ status, body }) => {
            response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
            this.#answers.delete(answer);
          },
        );
        this.#answers.add(answer);
      });
    });
  }

  static async start(): Promise<VaultServer> {
    const directory = await mkdtemp(join(tmpdir(), 'vault-'));
    const file = (name: string) => join(directory, name);
    await writeFile(file('ca.ext'), CA_EXTENSIONS);
    await writeFile(file('leaf.ext'), LEAF_EXTENSIONS);
    await writeFile(file('server.ext'), `${LEAF_EXTENSIONS}subjectAltName=IP:127.0.0.1\n`);
    for (const name of ['root', 'intermediate', 'server']) {
      await run('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', file(`${name}.key`)]);
      await run('openssl', [
        'req',
        '-new',
        '-key',
        file(`${name}.key`),
        '-subj',
        `/CN=${name}`,
        '-out',
        file(`${name}.csr`),
      ]);
    }
    const sign = (name: string, ext: string, ...by: readonly string[]) =>
      run('openssl', [
        ...[
          'x509',
          '-req',
          '-in',
          file(`${name}.csr`),
          '-out',
          file(`${name}.crt`),
          '-days',
          '30',
          '-extfile',
          file(ext),
        ],
        ...by,
      ]);
    const byRoot = ['-CA', file('root.crt'), '-CAkey', file('root.key')];
    await sign('root', 'ca.ext', '-key', file('root.key'));
    await sign('intermediate', 'ca.ext', ...byRoot);
    await sign('server', 'server.ext', ...byRoot);
    const [ca, key, certificate] = await Promise.all(
      ['root.crt', 'server.key', 'server.crt'].map((name) => readFile(file(name), 'utf8')),
    );
    const vault = new VaultServer(directory, ca ?? '', key ?? '', certificate ?? '');
    await new Promise<void>((resolve) => vault.#server.listen(0, '127.0.0.1', resolve));
    return vault;
  }

  get address(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    await Promise.all(this.#answers);
    await rm(this.#directory, { recursive: true });
  }

  async #answer(path: string, token: string | string[] | undefined, text: string): Promise<Answer> {
    if (this.broken !== undefined) return { status: this.broken, body: { errors: ['it is broken'] } };
    const body = JSON.parse(text) as { readonly role?: string; readonly jwt?: string; readonly csr?: string };
    if (path === '/v1/auth/kubernetes/login') {
      this.logins += 1;
      if (body.role !== 'meshcert' || !this.accepts(body.jwt ?? '')) return denied;
      return { status: 200, body: { auth: { client_token: this.clientToken, lease_duration: 3600 } } };
    }
    if (path !== '/v1/pki/sign/gateway') return { status: 404, body: { errors: ['unsupported path'] } };
    if (token !== this.clientToken) return denied;
    return { status: 200, body: { data: await this.#sign(body.csr ?? '') } };
  }

  /** With the names of the request, as a role with `use_csr_sans` does. */
  async #sign(csr: string): Promise<object> {
    const file = (name: string) => join(this.#directory, name);
    const request = file(`${crypto.randomUUID()}.csr`);
    await writeFile(request, csr);
    const { stdout: certificate } = await run('openssl', [
      ...['x509', '-req', '-in', request, '-days', '1', '-copy_extensions', 'copy', '-extfile', file('leaf.ext')],
      ...['-CA', file('intermediate.crt'), '-CAkey', file('intermediate.key')],
    ]);
    const [intermediate, root] = await Promise.all(
      ['intermediate.crt', 'root.crt'].map((name) => readFile(file(name), 'utf8')),
    );
    return { certificate, issuing_ca: intermediate, ca_chain: [intermediate, root] };
  }
}

const denied: Answer = { status: 403, body: { errors: ['permission denied'] } };
