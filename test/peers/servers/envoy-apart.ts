import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peer } from '../build.ts';
import { eventually } from '../parts/eventually.ts';
import type { KubeApiserver } from './kube-apiserver.ts';
import { Daemon, type Server, scratchDir, serverOf } from './process.ts';

export interface EnvoyApartOptions {
  readonly apiserver: KubeApiserver;
  /** Where Envoy Gateway puts Deployments. */
  readonly namespace: string;
  /** `NAMESPACE/NAME`. */
  readonly gateway: string;
  /** Arguments of nsenter for the network of Envoy Gateway. */
  readonly enter: readonly string[];
  /** The directory with its certificate for Envoy Gateway. */
  readonly certs: string;
  /** A free port in that network, and the one after it. */
  readonly port: number;
  /** Whether a URL at that port answers. */
  readonly answers: () => Promise<boolean>;
}

/** The Envoy that the Deployment for a Gateway describes, with other ports and paths, as no kubelet starts it here. */
export async function startEnvoyApart(options: EnvoyApartOptions): Promise<Server> {
  const { apiserver, namespace, gateway, enter, port } = options;
  const [owner, name] = gateway.split('/');
  const labels = `gateway.envoyproxy.io/owning-gateway-name=${name},gateway.envoyproxy.io/owning-gateway-namespace=${owner}`;
  const path = `/apis/apps/v1/namespaces/${namespace}/deployments?labelSelector=${encodeURIComponent(labels)}`;
  const find = async () => (await apiserver.call('GET', path)).body.items[0];
  await eventually(`a Deployment for ${gateway}`, async () => (await find()) !== undefined);
  const deployment = await find();
  const dir = scratchDir('envoy-apart');
  const own = `/api/v1/namespaces/${namespace}/configmaps/${deployment.metadata.name}`;
  const { data } = (await apiserver.call('GET', own)).body as { data: Readonly<Record<string, string>> };
  for (const [file, text] of Object.entries(data)) {
    await writeFile(join(dir, file), text.replaceAll('/certs/', `${options.certs}/`));
  }
  const args: readonly string[] = deployment.spec.template.spec.containers[0].args;
  const argument = (flag: string) => args[args.indexOf(flag) + 1] ?? '';
  const config = argument('--config-yaml')
    .replaceAll(/port_value: 19000\b/g, `port_value: ${port}`)
    .replaceAll(/port_value: 19001\b/g, `port_value: ${port + 1}`)
    .replaceAll(/envoy-gateway\.\S+/g, '127.0.0.1')
    .replaceAll('/sds/', `${dir}/`)
    .replaceAll('$(ENVOY_SERVICE_ZONE)', '""');
  await writeFile(join(dir, 'envoy.yaml'), config);
  const daemon = await Daemon.start({
    name: 'envoy',
    // Envoy opens /dev/stdout for its access log, which it can if that is a pipe, not a socket.
    file: '/bin/bash',
    args: [
      ...['-c', 'exec nsenter "$@" > >(cat)', 'envoy'],
      ...[...enter, `--wd=${dir}`, '--', await peer('envoy')],
      ...['--service-cluster', argument('--service-cluster'), '--service-node', `${deployment.metadata.name}-0`],
      ...['--config-path', join(dir, 'envoy.yaml'), '--concurrency', '1', '--disable-hot-restart'],
      ...['--log-level', 'warning', '--file-flush-interval-msec', '100'],
    ],
    dir,
    ready: options.answers,
  });
  return serverOf(daemon, dir);
}
