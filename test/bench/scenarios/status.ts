import { readFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { parse } from 'yaml';
import { FIELD_MANAGER } from '../../../src/objects/objects.ts';
import { isPublished, startBundle, untilPublished } from '../parts/bundle.ts';
import { missing, row, type Scenario } from '../scenario.ts';
import { inLanes, interleaved } from '../statistics.ts';
import { observing } from './first.ts';
import { settled } from './start.ts';

const AT_ONCE = 8;
/** Statuses that the agent wrote, and that both sides write again with a change. */
const STATUSES = 50;
/** Of each of them, in a round. */
const WRITES = 10;

interface Resource {
  readonly metadata: { readonly name: string };
  readonly status: { readonly rotations: number };
}

export const status: Scenario = {
  id: 'status',
  title: 'A status by server-side apply, and by JSON merge patch',
  same: `Statuses that the shipped bundle has written are written again, with another number of rotations, ${AT_ONCE} at a time: as the agent does it, by a server-side apply of the whole status by force, and by a JSON merge patch of the whole status under the same field manager. CPU is that of the API server’s process, as the kernel reports it.`,
  async run({ sizes, fleets, say }) {
    const world = await fleets.world('kube-apiserver').catch(missing);
    const namespace = 'status';
    await world.populate(namespace, STATUSES);
    {
      const args = ['-n', namespace, '--no-leader-elect', ...observing('labels')];
      await using bundle = await startBundle(world.kubeconfigFile, args);
      await untilPublished(bundle, STATUSES);
      await settled(world);
      say(`${(await bundle.statuses()).filter(isPublished).length} statuses`);
    }
    const send = await senderTo(world.kubeconfig);
    const path = `/apis/meshcert.dev/v1alpha1/namespaces/${namespace}/meshcertificates`;
    const { items } = (await send('GET', path)) as { items: readonly Resource[] };
    let rotations = 0;
    const cpuOf = async (write: (resource: Resource) => Promise<unknown>) => {
      const before = (await world.serverCpu()) ?? Number.NaN;
      for (let round = 0; round < WRITES; round++) {
        rotations += 1;
        await inLanes(AT_ONCE, items.length, async (at) => {
          const item = items[at];
          if (item) await write({ ...item, status: { ...item.status, rotations } });
        });
      }
      return (((await world.serverCpu()) ?? Number.NaN) - before) / (WRITES * items.length);
    };
    const statusOf = ({ metadata: { name } }: Resource) => `${path}/${name}/status?fieldManager=${FIELD_MANAGER}`;
    const merge = (resource: Resource) =>
      send('PATCH', statusOf(resource), { status: resource.status }, 'application/merge-patch+json');
    const apply = (resource: Resource) => {
      const { status, metadata } = resource;
      const { name } = metadata;
      const document = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata: { name, namespace } };
      return send('PATCH', `${statusOf(resource)}&force=true`, { ...document, status }, 'application/apply-patch+yaml');
    };
    say(`${items.length * WRITES} writes of each kind, ${sizes.rounds} times`);
    const found = await interleaved(
      sizes.rounds,
      () => cpuOf(merge),
      () => cpuOf(apply),
    );
    return {
      rows: [row('CPU of the API server for one status, merge patch against apply', 'ms', found.ours, found.theirs)],
      counts: [],
      notes: [],
    };
  },
};

/** JSON requests as the kubeconfig's user, over connections that stay open. */
async function senderTo(kubeconfig: string) {
  const { clusters, users } = parse(kubeconfig) as {
    readonly clusters: readonly {
      readonly cluster: { readonly server: string; readonly 'certificate-authority': string };
    }[];
    readonly users: readonly { readonly user: { readonly token: string } }[];
  };
  const [{ cluster } = { cluster: undefined }] = clusters;
  const ca = await readFile(cluster?.['certificate-authority'] ?? '');
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE, ca });
  const authorization = `Bearer ${users[0]?.user.token}`;
  return (method: string, path: string, body?: object, type = 'application/json'): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const headers = { authorization, accept: 'application/json', 'content-type': type };
      const sent = request(new URL(path, cluster?.server), { method, headers, agent }, async (response) => {
        const text = Buffer.concat(await response.toArray()).toString();
        if (response.statusCode === 200) resolve(JSON.parse(text));
        else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
      });
      sent.on('error', reject);
      sent.end(body && JSON.stringify(body));
    });
}
