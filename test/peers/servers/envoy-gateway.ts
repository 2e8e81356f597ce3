import { existsSync } from 'node:fs';
import { appendFile, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import { peer } from '../build.ts';
import { eventually } from '../parts/eventually.ts';
import { startEnvoyApart } from './envoy-apart.ts';
import { startForwarding } from './forwarding.ts';
import { goModuleSource } from './go-module.ts';
import type { KubeApiserver } from './kube-apiserver.ts';
import { answers } from './loopback.ts';
import { Daemon, discard, output, type Server, scratchDir, serverOf } from './process.ts';

export const MODULE = 'github.com/envoyproxy/gateway@v1.9.1';
export const NAMESPACE = 'envoy-gateway-system';
/** The version in the wheel of the peer `envoy`; it only names a directory here. */
const ENVOY_VERSION = '1.40.0';
export const GATEWAY_CLASS = 'eg';
export const CONTROLLER_NAME = 'gateway.envoyproxy.io/gatewayclass-controller';

/** Of Envoys apart, beyond the ports of Envoy Gateway. */
const FIRST_ADMIN_PORT = 19_100;

/** One line of Envoy's access log, as far as tests read it. */
export interface AccessLogLine {
  readonly 'x-envoy-origin-path': string;
  readonly response_code: number;
  readonly response_flags: string;
  readonly response_code_details: string;
  readonly upstream_transport_failure_reason: string | null;
}

export interface Answer {
  readonly status: number;
  readonly body: string;
}

/**
 * Envoy Gateway on an API server, with Envoys as its child processes. It has a network and a `/certs` of its own,
 * because its ports and that path cannot be configured.
 */
export interface EnvoyGatewayServer extends Server {
  /** A request to the listener with this port of a Gateway; the path comes back in the access log. */
  get(port: number, path: string, host?: string): Promise<Answer>;
  /** The port of this machine's loopback that leads to the listener with this port of a Gateway. */
  port(port: number): Promise<number>;
  /** What Envoy logged about the last request with this path; waits for it. */
  logged(path: string): Promise<AccessLogLine>;
  /** An answer of the admin endpoint of the Envoy of the Gateway `NAMESPACE/NAME`. */
  admin(gateway: string, path: string): Promise<string>;
  /** An Envoy that starts later finds this host name at its loopback, as if it were the name of a Service. */
  resolve(host: string): Promise<void>;
  /** Starts the Envoy of the Gateway `NAMESPACE/NAME`, which is apart from Envoy Gateway. */
  proxy(gateway: string): Promise<Server>;
  /** Where this machine reaches the admin endpoint of the Envoy of the Gateway `NAMESPACE/NAME`. */
  adminUrl(gateway: string): Promise<string>;
  /** From now on Envoy reaches this port of the loopback of this machine under the same number. */
  expose(port: number): Promise<void>;
}

export interface EnvoyGatewayOptions {
  /**
   * No Envoy is its child process; `proxy` starts them. Otherwise they end together with Envoy Gateway, as they do not
   * in a cluster.
   */
  readonly apart?: boolean;
  /** It reads Backends; default true. */
  readonly backends?: boolean;
}

const HOST_PROVIDER = (dir: string) => ({
  type: 'Custom',
  custom: {
    resource: { type: 'Kubernetes', kubernetes: { leaderElection: { disable: true } } },
    infrastructure: {
      type: 'Host',
      host: {
        configHome: join(dir, 'config'),
        dataHome: join(dir, 'data'),
        stateHome: join(dir, 'state'),
        runtimeDir: join(dir, 'run'),
      },
    },
  },
});

const APART_PROVIDER = {
  type: 'Kubernetes',
  kubernetes: { leaderElection: { disable: true }, proxyTopologyInjector: { disable: true } },
};

const CONFIG = (provider: object, enableBackend: boolean) => ({
  apiVersion: 'gateway.envoyproxy.io/v1alpha1',
  kind: 'EnvoyGateway',
  gateway: { controllerName: CONTROLLER_NAME },
  provider,
  extensionApis: { enableBackend },
});

/** How each Envoy runs. */
export const proxySettings = (apart: boolean) =>
  apart
    ? { provider: { type: 'Kubernetes' } }
    : {
        concurrency: 1,
        provider: { type: 'Host', host: { envoyVersion: ENVOY_VERSION } },
        // Without the first flag, only one Envoy starts on a machine.
        extraArgs: ['--disable-hot-restart', '--file-flush-interval-msec', '100'],
      };

const CLASS = (apart: boolean) => [
  { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE } },
  {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'GatewayClass',
    metadata: { name: GATEWAY_CLASS },
    spec: {
      controllerName: CONTROLLER_NAME,
      parametersRef: { group: 'gateway.envoyproxy.io', kind: 'EnvoyProxy', name: 'host', namespace: NAMESPACE },
    },
  },
  {
    apiVersion: 'gateway.envoyproxy.io/v1alpha1',
    kind: 'EnvoyProxy',
    metadata: { name: 'host', namespace: NAMESPACE },
    spec: proxySettings(apart),
  },
];

/** A new root directory with the one of this machine in it, but for `/certs` and `/etc/hosts`, and a network with a loopback alone. */
const SETUP = `
set -e
root=$1 certs=$2 hosts=$3
shift 3
mount -t tmpfs tmpfs "$root"
for path in /*; do
  if [ -L "$path" ]; then cp -P "$path" "$root$path"
  elif [ -d "$path" ]; then mkdir "$root$path"; mount --rbind "$path" "$root$path"; fi
done
mkdir -p "$root/certs"
mount --bind "$certs" "$root/certs"
mount --bind "$hosts" "$root/etc/hosts"
ip link set lo up
exec chroot "$root" "$@"
`;

export async function startEnvoyGatewayServer(
  apiserver: KubeApiserver,
  { apart = false, backends = true }: EnvoyGatewayOptions = {},
): Promise<EnvoyGatewayServer> {
  const dir = scratchDir('envoy-gateway');
  const certs = { own: join(dir, 'certs'), envoy: join(dir, 'config', 'certs', 'envoy') };
  const envoyHome = join(dir, 'data', 'envoy-versions', ENVOY_VERSION, 'bin');
  for (const path of [certs.own, certs.envoy, envoyHome, join(dir, 'root')]) await mkdir(path, { recursive: true });
  await symlink(await peer('envoy'), join(envoyHome, 'envoy'));
  await writeFile(join(dir, 'setup.sh'), SETUP);
  const hosts = join(dir, 'hosts');
  await writeFile(hosts, '127.0.0.1 localhost\n');
  await writeFile(
    join(dir, 'config.yaml'),
    JSON.stringify(CONFIG(apart ? APART_PROVIDER : HOST_PROVIDER(dir), backends)),
  );
  const file = await peer('envoy-gateway');
  const env = { KUBECONFIG: apiserver.kubeconfigFile, ENVOY_GATEWAY_NAMESPACE: NAMESPACE };

  const forwarding = await startForwarding(dir, (program, args) => [
    'unshare',
    [
      ...['--map-root-user', '--net', '--mount', '--propagation', 'private'],
      ...['bash', join(dir, 'setup.sh'), join(dir, 'root'), certs.own, hosts, program, ...args],
    ],
  ]);
  const enter = [`--target=${forwarding.pid}`, '--user', '--net', '--mount', '--root', '--preserve-credentials'];
  const start = async () => {
    await forwarding.expose(apiserver.port);
    await installDefinitions(apiserver);
    await apiserver.kubectl(['apply', '--server-side', '-f', '-'], { input: list(CLASS(apart)) });
    await output(file, ['certgen', '--disable-topology-injector'], { cwd: dir, env });
    await writeSecret(apiserver, 'envoy-gateway', certs.own);
    await writeSecret(apiserver, 'envoy', certs.envoy);
    const health = await forwarding.port('127.0.0.1:8081');
    return await Daemon.start({
      name: 'envoy-gateway',
      file: 'nsenter',
      args: [...enter, `--wd=${dir}`, '--', file, 'server', '--config-path', join(dir, 'config.yaml')],
      dir,
      env,
      ready: () => answers(`http://127.0.0.1:${health}/readyz`),
      graceMs: 5_000,
    });
  };
  const daemon = await start().catch(async (error) => {
    await forwarding[Symbol.asyncDispose]();
    throw error;
  });

  let proxies = 0;
  const ask = async (address: string, path: string, host?: string): Promise<Answer> => {
    const port = await forwarding.port(address);
    return new Promise((resolve, reject) => {
      const headers = host === undefined ? {} : { host };
      const request = get({ host: '127.0.0.1', port, path, headers, agent: false, timeout: 20_000 }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          body += part;
        });
        response.once('end', () => resolve({ status: response.statusCode ?? 0, body })).once('error', reject);
      });
      request.once('timeout', () => request.destroy(new Error('no answer'))).once('error', reject);
    });
  };

  const adminOf = async (gateway: string): Promise<string> => {
    const runs = join(dir, 'run');
    for (const run of (await readdir(runs)).reverse()) {
      const address = join(runs, run, 'admin-address.txt');
      if (!existsSync(address)) continue;
      const at = (await readFile(address, 'utf8')).trim();
      const info = await ask(at, '/server_info').catch(() => undefined);
      if (info?.body.includes(`"service_cluster": "${gateway}"`)) return at;
    }
    throw new Error(`no Envoy serves the Gateway ${gateway}`);
  };

  return {
    ...serverOf(daemon, dir),
    stop,
    [Symbol.asyncDispose]: stop,
    resolve: (host) => appendFile(hosts, `127.0.0.1 ${host}\n`),
    expose: (port) => forwarding.expose(port),
    async proxy(gateway) {
      const port = FIRST_ADMIN_PORT + 10 * proxies++;
      const admin = await forwarding.port(`127.0.0.1:${port}`);
      return await startEnvoyApart({
        ...{ apiserver, namespace: NAMESPACE, gateway, enter, port },
        certs: certs.envoy,
        answers: () => answers(`http://127.0.0.1:${admin}/ready`),
      });
    },
    port: (port) => forwarding.port(`127.0.0.1:${port}`),
    get: (port, path, host) => ask(`127.0.0.1:${port}`, path, host),
    async logged(path) {
      const find = () => accessLog(daemon.log()).findLast((line) => line['x-envoy-origin-path'] === path);
      await eventually(`an access log line for ${path}`, async () => find() !== undefined, daemon.log.bind(daemon));
      return find() as AccessLogLine;
    },
    admin: async (gateway, path) => (await ask(await adminOf(gateway), path)).body,
    adminUrl: async (gateway) => `http://127.0.0.1:${await forwarding.port(await adminOf(gateway))}`,
  };

  async function stop(): Promise<void> {
    await daemon.stop();
    await forwarding[Symbol.asyncDispose]();
    discard(dir);
  }
}

/** The CustomResourceDefinitions of its chart, without the lines of the template. */
async function installDefinitions(apiserver: KubeApiserver): Promise<void> {
  const templates = join(await goModuleSource('envoy-gateway', MODULE), 'charts/gateway-crds-helm/templates');
  const generated = join(templates, 'generated');
  const files = [
    join(templates, 'standard-gatewayapi-crds.yaml'),
    ...(await readdir(generated)).map((name) => join(generated, name)),
  ];
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8')));
  const input = texts.map((text) => text.replace(/^\{\{-.*\}\}$/gm, '')).join('\n---\n');
  await apiserver.kubectl(['apply', '--server-side', '-f', '-'], { input });
  await apiserver.kubectl(['wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all']);
}

/** What `envoy-gateway certgen` has put into a Secret, as files. */
async function writeSecret(apiserver: KubeApiserver, name: string, dir: string): Promise<void> {
  const { body } = await apiserver.call('GET', `/api/v1/namespaces/${NAMESPACE}/secrets/${name}`);
  for (const file of ['tls.crt', 'tls.key', 'ca.crt']) {
    await writeFile(join(dir, file), Buffer.from(body.data[file], 'base64'));
  }
}

/** Envoy writes to the stdout of its parent, between the parent's own lines. */
function accessLog(text: string): AccessLogLine[] {
  return text.split('\n').flatMap((line) => {
    const start = line.indexOf('{');
    if (start === -1 || !line.includes('"x-envoy-origin-path"')) return [];
    try {
      return [JSON.parse(line.slice(start)) as AccessLogLine];
    } catch {
      return [];
    }
  });
}

const list = (items: readonly object[]): string => JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
