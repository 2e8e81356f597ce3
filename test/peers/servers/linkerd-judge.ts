import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { type AddressInfo, connect } from 'node:net';

import { join } from 'node:path';
import { createSecureContext, createServer, type TLSSocket } from 'node:tls';
import { peer } from '../build.ts';
import { type Authority, authority } from './authority.ts';
import type { KubeApiserver } from './kube-apiserver.ts';
import { freePorts, listening } from './loopback.ts';
import { Daemon, type Server, scratchDir, serverOf } from './process.ts';

/**
 * Linkerd's identity service: our judge on Linkerd's own stubs, with a TLS terminator in front of it that behaves like
 * the controller's sidecar: only 1.3, SNI must be `serverName`, no ALPN, client certificate not needed.
 */
export interface LinkerdJudge extends Server {
  /** Plaintext h2c, as the controller itself serves. */
  readonly address: string;
  readonly tlsAddress: string;
  readonly serverName: string;
  readonly trustDomain: string;
  readonly namespace: string;
  /** The trust anchors as published in ConfigMap `linkerd-identity-trust-roots`, PEM. */
  readonly roots: string;
  /** The identity that a ServiceAccount's token is valid for. */
  identity(namespace: string, serviceAccount: string): string;
  /** Another issuer for later leaves; one that does not verify under `roots` is skipped, as Linkerd does. */
  replaceIssuer(issuer?: Authority): Promise<void>;
}

export interface LinkerdJudgeOptions {
  readonly apiserver: KubeApiserver;
  readonly trustDomain?: string;
  readonly namespace?: string;
  /** Go durations; Linkerd's chart has 24h and 20s. */
  readonly lifetime?: string;
  readonly skew?: string;
  readonly root?: Authority;
}

export async function startLinkerdJudge(options: LinkerdJudgeOptions): Promise<LinkerdJudge> {
  const { apiserver, trustDomain = 'cluster.local', namespace = 'linkerd', lifetime = '24h', skew = '20s' } = options;
  const dir = scratchDir('linkerd');
  const { port } = await freePorts('port');
  const address = `127.0.0.1:${port}`;
  const identity: LinkerdJudge['identity'] = (ns, account) =>
    `${account}.${ns}.serviceaccount.identity.${namespace}.${trustDomain}`;
  const serverName = identity(namespace, 'linkerd-identity');
  const root = options.root ?? (await authority('root.linkerd.cluster.local'));

  const files = { cert: join(dir, 'issuer.crt'), key: join(dir, 'issuer.key'), roots: join(dir, 'ca-bundle.crt') };
  const writeIssuer = async (issuer: Authority): Promise<void> => {
    // The controller's issuer file does not contain the root.
    const chain = issuer.chain.replace(issuer.root, '');
    await writeFile(files.key, issuer.key, { mode: 0o600 });
    await writeFile(files.cert, chain || issuer.certificate);
  };
  const firstIssuer = await root.intermediate('identity.linkerd.cluster.local');
  await writeIssuer(firstIssuer);
  await writeFile(files.roots, root.root);
  await publish(apiserver, namespace, root.root, trustDomain);

  const daemon = await Daemon.start({
    name: 'linkerd-judge',
    file: await peer('linkerd-judge'),
    args: [
      ...['--addr', address, '--issuer-cert', files.cert, '--issuer-key', files.key, '--roots', files.roots],
      ...['--trust-domain', trustDomain, '--linkerd-namespace', namespace],
      ...['--apiserver', apiserver.url, '--apiserver-ca', apiserver.caFile, '--token', apiserver.adminToken],
      ...['--lifetime', lifetime, '--skew', skew],
    ],
    dir,
    ready: () => listening(port),
  });
  const leaf = await firstIssuer.issue({ dns: [serverName], commonName: serverName });
  const sidecar = await terminate(serverName, leaf, port);

  const server = serverOf(daemon, dir);
  const stop = async (): Promise<void> => {
    sidecar.close();
    await server.stop();
  };
  return {
    ...server,
    stop,
    [Symbol.asyncDispose]: stop,
    address,
    tlsAddress: `127.0.0.1:${sidecar.port}`,
    serverName,
    trustDomain,
    namespace,
    roots: root.root,
    identity,
    replaceIssuer: async (issuer) => {
      await writeIssuer(issuer ?? (await root.intermediate('identity.linkerd.cluster.local')));
      const seen = verdicts(daemon);
      await daemon.kill('SIGHUP');
      while (verdicts(daemon) === seen) await new Promise((resolve) => setTimeout(resolve, 5));
    },
  };
}

function verdicts(daemon: Daemon): number {
  return daemon.log().match(/IssuerUpdate(d|Skipped)/g)?.length ?? 0;
}

async function publish(apiserver: KubeApiserver, namespace: string, roots: string, trustDomain: string) {
  await apiserver.ensureNamespace(namespace);
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const maps = {
    'linkerd-identity-trust-roots': { 'ca-bundle.crt': roots },
    'linkerd-config': { values: `identityTrustDomain: ${trustDomain}\n` },
  };
  for (const [name, data] of Object.entries(maps)) {
    await apiserver.apply(path, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data });
  }
}

async function terminate(serverName: string, leaf: { chain: string; key: string }, port: number) {
  const context = createSecureContext({ cert: leaf.chain, key: leaf.key });
  const open = new Set<TLSSocket>();
  const server = createServer({
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: false,
    SNICallback: (name, done) =>
      name === serverName ? done(null, context) : done(new Error(`${name} is not served here`)),
  });
  server.on('secureConnection', (outer) => {
    open.add(outer);
    const inner = connect({ port, host: '127.0.0.1' });
    outer.pipe(inner).pipe(outer);
    outer.on('error', () => inner.destroy()).on('close', () => inner.destroy() && open.delete(outer));
    inner.on('error', () => outer.destroy()).on('close', () => outer.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}
