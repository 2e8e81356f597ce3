import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { noCluster } from '../cluster/cluster.ts';
import { type Life, startLife, VALUES } from '../cluster/life.ts';
import { GATEWAY } from '../cluster/mesh/gateway.ts';

const { namespace } = GATEWAY;
/** The shortest that the API server issues. It accepts a token for another minute, for clocks that differ. */
const TOKEN_SECONDS = 600;
const MOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const CERTIFICATES = `/apis/meshcert.dev/v1alpha1/namespaces/${namespace}/meshcertificates`;

/** The volume that Kubernetes mounts into each pod, with a token that ends sooner. */
const VOLUME = {
  extraVolumes: [
    {
      name: 'kube-api-access',
      projected: {
        sources: [
          { serviceAccountToken: { path: 'token', expirationSeconds: TOKEN_SECONDS } },
          { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
          { downwardAPI: { items: [{ path: 'namespace', fieldRef: { fieldPath: 'metadata.namespace' } }] } },
        ],
      },
    },
  ],
  extraVolumeMounts: [{ name: 'kube-api-access', mountPath: MOUNT, readOnly: true }],
};

/**
 * A release on the node of the cluster suite, under traffic and with a rotation each half minute, from the first tokens
 * of its pods until the API server refuses them; true: no request failed, and the same processes still publish.
 */
export async function tokens(): Promise<boolean> {
  const missing = noCluster();
  if (missing) throw new Error(String(missing));
  await using life = await startLife(async ({ chart, shell }) => {
    await writeFile(join(shell.dir, 'volume.json'), JSON.stringify(VOLUME));
    return `helm install meshcert ${chart} -n ${namespace} --wait -f ${VALUES} -f volume.json`;
  });
  const containers = await containersOf(life);
  const first = await Promise.all((await life.pods()).map((pod) => tokenIn(life, pod)));
  const start = performance.now();
  while ((await answersTo(life, first)).some((status) => status !== 401)) {
    await life.nextWrite();
    await delay(30_000);
  }
  const minutes = ((performance.now() - start) / 60_000).toFixed(1);
  const write = await life.nextWrite();
  console.log(`the first tokens were refused after ${minutes} minutes; the next write took ${write} ms`);
  console.log(await life.unharmed());
  const after = await containersOf(life);
  if (after !== containers) console.error(`containers before:\n${containers}\nafter:\n${after}`);
  return after === containers;
}

const containersOf = (life: Life): Promise<string> =>
  life.get(
    'pods -l app.kubernetes.io/name=meshcert -o jsonpath=\'{range .items[*]}{.status.containerStatuses[0].containerID}{"\\n"}{end}\'',
  );

function tokenIn({ world }: Life, pod: string): Promise<string> {
  const script = `process.stdout.write(require('node:fs').readFileSync('${MOUNT}/token'))`;
  return world.cluster.kubectl(['exec', '-n', namespace, pod, '--', '/usr/bin/node', '-e', script]);
}

const answersTo = ({ world }: Life, all: readonly string[]): Promise<number[]> =>
  Promise.all(
    all.map(async (token) => (await world.cluster.call('GET', CERTIFICATES, undefined, { token })).status ?? 0),
  );
