import { CoreV1Api, KubeConfig, makeInformer } from '@kubernetes/client-node';
import { systemClock } from '../../../src/async/clock.ts';
import { connect } from '../../../src/kube/client.ts';
import { reflect } from '../../../src/kube/reflector.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { keyOf } from '../../../src/objects/objects.ts';
import { createLog } from '../../../src/telemetry/log.ts';
import { startPart } from '../parts/part.ts';
import type { Stream } from '../parts/stream.ts';
import { type Row, row } from '../scenario.ts';
import { interleaved } from '../statistics.ts';

const NAMESPACE = 'streamed';
const SECRETS = 1_000;
/** As many as a Secret with a leaf, an intermediate and a key holds. */
const BYTES = 2_300;

/** From the first request to the last event of one watch, the same for both, until its object is in the cache. */
export async function reflectorRow(rounds: number, events: number): Promise<Row> {
  await using stream = startPart<Stream>('stream');
  const server = await stream.call('start', { namespace: NAMESPACE, events, secrets: SECRETS, bytes: BYTES });
  const kubeconfig = kubeconfigOf(server);
  const last = { name: `s-${(events - 1) % SECRETS}`, resourceVersion: `${events + 1}` };
  const timed = async (run: () => Promise<void>) => {
    const began = performance.now();
    await run();
    return (events / (performance.now() - began)) * 1000;
  };
  const { ours, theirs } = await interleaved(
    rounds,
    () => timed(() => reflected(kubeconfig, last)),
    () => timed(() => informed(kubeconfig, last)),
  );
  return row(`watch: ${events} events of ${SECRETS} Secrets, against the informer of client-node`, '/s', ours, theirs);
}

interface Last {
  readonly name: string;
  readonly resourceVersion: string;
}

async function reflected(kubeconfigText: string, last: Last): Promise<void> {
  const kube = connect({ kubeconfigText, userAgent: 'bench' });
  const stop = new AbortController();
  const { signal } = stop;
  let failure: Error | undefined;
  const onError = (error: Error) => {
    failure = error;
    stop.abort(error);
  };
  const options = { clock: systemClock, random: Math.random, log: createLog({ level: 'error' }), signal, onError };
  const reflector = reflect(kube, RESOURCES.secrets, { namespace: NAMESPACE }, options);
  for await (const _ of reflector.changes()) {
    const object = reflector
      .items()
      .get(keyOf({ apiVersion: 'v1', kind: 'Secret', namespace: NAMESPACE, name: last.name }));
    if (object?.metadata.resourceVersion === last.resourceVersion) break;
  }
  stop.abort(new Error('over'));
  await reflector.ended;
  kube.close();
  if (failure) throw failure;
}

async function informed(kubeconfigText: string, last: Last): Promise<void> {
  const config = new KubeConfig();
  config.loadFromString(kubeconfigText);
  const api = config.makeApiClient(CoreV1Api);
  const path = `/api/v1/namespaces/${NAMESPACE}/secrets`;
  const informer = makeInformer(config, path, () => api.listNamespacedSecret({ namespace: NAMESPACE }));
  const seen = new Promise<void>((resolve, reject) => {
    const look = ({ metadata }: { metadata?: { name?: string; resourceVersion?: string } }) => {
      if (metadata?.name === last.name && metadata.resourceVersion === last.resourceVersion) resolve();
    };
    informer.on('add', look);
    informer.on('update', look);
    informer.on('error', reject);
  });
  await informer.start();
  await seen;
  await informer.stop();
}

const kubeconfigOf = (server: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'here', cluster: { server, 'insecure-skip-tls-verify': true } }],
    users: [{ name: 'me', user: {} }],
    contexts: [{ name: 'here', context: { cluster: 'here', user: 'me' } }],
    'current-context': 'here',
  });
