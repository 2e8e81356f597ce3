import { join } from 'node:path';
import { Aim, type Judge, judgeOn } from '../../doctor/judge.ts';
import { startEnvoy, validateEnvoy } from '../servers/envoy.ts';
import { headerListener } from '../servers/envoy-config.ts';
import { freePorts } from '../servers/loopback.ts';
import { clusterOf, writePem } from './envoy-clusters.ts';
import { startTcpProxy } from './tcp-proxy.ts';

/**
 * A real Envoy behind Emissary's rules: Envoy validates the configuration that Emissary would make, as Emissary has it
 * do, and it is then swapped in as a whole.
 */
export async function startEnvoyJudge(): Promise<Judge> {
  const { http } = await freePorts('http');
  const listeners = [headerListener(http, 'x-cluster')];
  const envoy = await startEnvoy({ listeners, clusters: [] });
  const aim = await Aim.create();
  const services = await startTcpProxy(() => aim.target);
  return judgeOn(
    {
      clear: () => envoy.swap([]),
      async take(configuration, start, pod) {
        const dir = join(envoy.dir, `start-${start}`);
        const clusters = await Promise.all(
          [...configuration.clusters.values()].map((one) => clusterOf(one, aim.portOf(one, services.port), dir, 1)),
        );
        await Promise.all([...pod.files].map(([path, pem]) => writePem(dir, path, pem)));
        try {
          await validateEnvoy(listeners, clusters);
        } catch (error) {
          return (error as Error).message;
        }
        await envoy.swap(clusters);
        return undefined;
      },
      async send(cluster, path) {
        const response = await fetch(`http://127.0.0.1:${http}${path}`, { headers: { 'x-cluster': cluster } });
        return { status: response.status, body: await response.text() };
      },
      async [Symbol.asyncDispose]() {
        await envoy.stop();
        await services[Symbol.asyncDispose]();
      },
    },
    aim,
  );
}
