import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { consul as adapter } from '../../adapters/consul/adapter.ts';
import { systemClock } from '../../src/async/clock.ts';
import { desiredObjects } from '../../src/gateway/desired.ts';
import { gatewaysOf } from '../../src/gateway/gateway.ts';
import { gateways } from '../../src/gateways.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import type { ConsulKind, ConsulSetup, ConsulTarget, Path } from '../contract/consul-target.ts';
import { peer } from './build.ts';
import { type Consul, startConsul } from './servers/consul.ts';
import { startConsulConnectProxy } from './servers/consul-connect-proxy.ts';
import { configureCa, createServiceToken, setIntention } from './servers/consul-levers.ts';
import { startEnvoy } from './servers/envoy.ts';
import { httpListener, mtlsCluster } from './servers/envoy-config.ts';
import { answers, freePorts } from './servers/loopback.ts';
import { Daemon, discard, scratchDir } from './servers/process.ts';

const CA_CONFIGURATION = '/v1/connect/ca/configuration';

export const realConsul: ConsulKind = {
  name: 'real',
  start: (setup) => (setup.leaderless ? startLeaderless() : startLeading(setup)),
};

async function startLeading(setup: ConsulSetup): Promise<ConsulTarget> {
  const consul = await startConsul({
    acl: setup.acl ?? false,
    ...(setup.connectDisabled ? { config: { connect: { enabled: false } } } : {}),
  });
  const { api } = consul;
  if (setup.leafLifetimeMs !== undefined) await setLeafLifetime(consul, setup.leafLifetimeMs);
  const logins = async (): Promise<{ AccessorID: string }[]> => {
    const tokens: { AccessorID: string; AuthMethod?: string; ExpirationTime?: string }[] = await api(
      'GET',
      '/v1/acl/tokens',
    );
    return tokens.filter(({ AuthMethod }) => AuthMethod);
  };
  return {
    clock: systemClock,
    httpAddress: setup.tls ? consul.httpsUrl : consul.url,
    grpcAddress: setup.tls ? consul.grpcTlsAddress : consul.grpcAddress,
    apiCa: setup.tls ? consul.ca.root : undefined,
    createToken: async (service) => (await createServiceToken(consul, service)).secret,
    async deleteLoginTokens() {
      for (const { AccessorID } of await logins()) await api('DELETE', `/v1/acl/token/${AccessorID}`);
    },
    loginTokens: async () => (await logins()).length,
    async addJwtMethod({ name, publicKey, issuer, audience, maxTokenTtlMs }) {
      await api('PUT', '/v1/acl/auth-method', {
        Name: name,
        Type: 'jwt',
        ...(maxTokenTtlMs === undefined ? {} : { MaxTokenTTL: `${maxTokenTtlMs / 1000}s` }),
        Config: {
          JWTValidationPubKeys: [publicKey],
          JWTSupportedAlgs: ['ES256'],
          BoundIssuer: issuer,
          BoundAudiences: [audience],
          ClaimMappings: { service: 'service' },
        },
      });
      // biome-ignore lint/suspicious/noTemplateCurlyInString: Consul fills it in
      await api('PUT', '/v1/acl/binding-rule', { AuthMethod: name, BindType: 'service', BindName: '${value.service}' });
    },
    async rotateRoot({ crossSign }) {
      const { Provider, Config } = await api('GET', CA_CONFIGURATION);
      const PrivateKeyBits = Number(Config.PrivateKeyBits) === 384 ? 256 : 384;
      await api('PUT', CA_CONFIGURATION, {
        Provider,
        Config: { ...Config, PrivateKeyType: 'ec', PrivateKeyBits },
        ForceWithoutCrossSigning: !crossSign,
      });
    },
    setLeafLifetime: (ms) => setLeafLifetime(consul, ms),
    async limitSigning() {
      await configureCa(consul, { CSRMaxPerSecond: 0.01 });
      // The one that the limit's burst allows.
      await api('GET', '/v1/agent/connect/ca/leaf/somebody-else');
    },
    rebuild: () => consul.restart(),
    allow: (source, destination) => setIntention(consul, source, destination, 'allow'),
    deny: (source, destination) => setIntention(consul, source, destination, 'deny'),
    path: (service) => openPath(consul, service),
    [Symbol.asyncDispose]: () => consul.stop(),
  };
}

function setLeafLifetime(consul: Consul, ms: number): Promise<void> {
  return configureCa(consul, { LeafCertTTL: `${ms / 1000}s`, SkipValidate: true });
}

/** One of three servers that never connect to each other. */
async function startLeaderless(): Promise<ConsulTarget> {
  const dir = scratchDir('consul-leaderless');
  const ports = await freePorts('http', 'grpc', 'grpc_tls', 'server', 'serf_lan', 'serf_wan');
  const file = join(dir, 'consul.json');
  await writeFile(
    file,
    JSON.stringify({
      server: true,
      bootstrap_expect: 3,
      data_dir: join(dir, 'data'),
      bind_addr: '127.0.0.1',
      disable_update_check: true,
      ports: { ...ports, dns: -1 },
    }),
  );
  const url = `http://127.0.0.1:${ports.http}`;
  const daemon = await Daemon.start({
    name: 'consul without a leader',
    file: await peer('consul'),
    args: ['agent', `-config-file=${file}`],
    dir,
    ready: () => answers(`${url}/v1/agent/self`),
  });
  const impossible = async (): Promise<never> => {
    throw new TypeError('a cluster without a leader takes no orders');
  };
  return {
    clock: systemClock,
    httpAddress: url,
    grpcAddress: `127.0.0.1:${ports.grpc}`,
    apiCa: undefined,
    createToken: impossible,
    deleteLoginTokens: impossible,
    loginTokens: impossible,
    addJwtMethod: impossible,
    rotateRoot: impossible,
    setLeafLifetime: impossible,
    limitSigning: impossible,
    rebuild: impossible,
    allow: impossible,
    deny: impossible,
    path: impossible,
    async [Symbol.asyncDispose]() {
      await daemon.stop();
      discard(dir);
    },
  };
}

/** The published Secrets through Envoy to a real Connect proxy in front of a plain service. */
async function openPath(consul: Consul, service: string): Promise<Path> {
  const plain = createServer((_, response) => response.end('plain'));
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
  const target = { port: (plain.address() as AddressInfo).port };
  const { secret } = await createServiceToken(consul, service);
  const proxy = await startConsulConnectProxy({ consul, service, target, token: secret });
  const { ingress } = await freePorts('ingress');
  const envoy = await startEnvoy({ listeners: [httpListener(ingress, 'up')], clusters: [] });
  return {
    async call(identity) {
      const files = await publishedFiles(envoy.dir, identity);
      await envoy.swap([mtlsCluster({ name: 'up', port: proxy.port, ...files })]);
      const response = await fetch(`http://127.0.0.1:${ingress}/`);
      const text = await response.text();
      if (response.status === 200 && text === 'plain') return 'allowed';
      // The proxy ends the connection after the handshake.
      if (response.status === 503 && /connection termination|reset/.test(text)) return 'refused';
      throw new Error(`Envoy answered ${response.status} ${text}`);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([envoy.stop(), proxy.stop()]);
      plain.closeAllConnections();
      await new Promise((resolve) => plain.close(resolve));
    },
  };
}

/** The files that Emissary would give Envoy for our publication. */
async function publishedFiles(dir: string, identity: Identity) {
  const spec = {
    mesh: { name: 'consul', config: {} },
    secretName: 'consul-identity',
    caSecretName: 'consul-ca',
    gateways: { emissary: { tlsContext: { name: 'consul', ambassadorIds: ['default'], enabled: true } } },
    labels: {},
    renewal: { at: 0.6, jitter: 0.06 },
    trust: { retainMs: 0, holdMs: 0, withdrawn: [] },
    paused: false,
    deletionPolicy: 'Retain',
  } as const;
  const objects = desiredObjects({
    meta: { name: 'consul', namespace: 'emissary' },
    spec,
    tls: adapter.tls,
    identity,
    bundle: identity.roots,
    since: new Map(),
    uses: gatewaysOf(spec, gateways),
  });
  const data = (name: string): Readonly<Record<string, string>> => {
    const found = objects.find(({ object }) => object.kind === 'Secret' && object.metadata.name === name);
    const encoded = found?.object.data as Readonly<Record<string, string>>;
    return Object.fromEntries(
      Object.entries(encoded).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
    );
  };
  const write = async (name: string, text = '') => {
    const path = join(dir, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  };
  const pair = data('consul-identity');
  return {
    certFile: await write('pair.crt', pair['tls.crt']),
    keyFile: await write('pair.key', pair['tls.key']),
    caFile: await write('ca.crt', data('consul-ca')['tls.crt']),
  };
}
