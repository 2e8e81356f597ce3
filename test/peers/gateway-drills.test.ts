import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { DrillTable } from './parts/drill-table.ts';
import { eventually } from './parts/eventually.ts';
import { GATEWAYS, pod, policy, route, SHOP, service, serviceRef } from './parts/gateway-lab.ts';
import { PATIENCE_MS } from './parts/gateway-rotations.ts';
import { type GatewayTraffic, PLACES, type Site, startGatewayTraffic } from './parts/gateway-traffic.ts';
import { type Load, startLoad } from './parts/load.ts';
import { authority } from './servers/authority.ts';
import type { ApplyObject } from './servers/kube-client.ts';

const MINUTE = 60_000;
/** Longer than Envoy Gateway takes to start on a busy machine. */
const LEAF_MS = MINUTE;
const PER_SECOND = 10;
const MERGE = 'application/merge-patch+json';

/** What was counted from one moment to another. */
interface Counted {
  readonly answered: number;
  readonly failures: readonly string[];
  readonly plaintext: number;
  readonly refused: number;
}

describe('drills behind Envoy Gateway, with the permissions that the product asks for', () => {
  const table = new DrillTable();
  /** Versions of Secrets that the test wrote. */
  const foreign = new Set<string>();
  let traffic: GatewayTraffic;
  const log = () => `${traffic.agent.log()}\n${traffic.lab.envoyGateway.log()}`;

  before(async () => {
    traffic = await startGatewayTraffic({ places: PLACES, leafMs: LEAF_MS, apart: true });
  });
  after(async () => {
    await traffic?.[Symbol.asyncDispose]();
    table.print();
  });

  /** Load through these sites while something happens. */
  async function during(sites: readonly Site[], happens: () => Promise<unknown>): Promise<Counted> {
    const before = sites.map(({ upstream }) => ({ ...upstream.counts }));
    const loads: Load[] = sites.map(({ url }) => startLoad(url, '', PER_SECOND, PATIENCE_MS));
    try {
      await happens();
    } finally {
      await Promise.all(loads.map((load) => load.stop()));
    }
    const grown = (count: 'plaintext' | 'handshakeFailures' | 'refused') =>
      sites.reduce((sum, { upstream }, n) => sum + upstream.counts[count] - (before[n]?.[count] ?? 0), 0);
    return {
      answered: loads.reduce((sum, load) => sum + load.answered, 0),
      failures: loads.flatMap((load) => load.failures),
      plaintext: grown('plaintext'),
      refused: grown('handshakeFailures') + grown('refused'),
    };
  }
  const clean = ({ failures, plaintext, refused }: Counted) =>
    assert.deepEqual({ failures, plaintext, refused }, { failures: [], plaintext: 0, refused: 0 }, log());
  const newest = ({ pair }: Site) => pair.leaves.at(-1);
  const leaves = (sites: readonly Site[], more: number) =>
    Promise.all(
      sites.map(({ pair, place }) => {
        const wanted = pair.leaves.length + more;
        return pair.until(() => pair.leaves.length >= wanted, MINUTE, `${more} leaves for ${place}`);
      }),
    );
  /** Waits until the upstream has seen a leaf that was not published before now. */
  async function presented(sites: readonly Site[]): Promise<void> {
    for (const one of sites) {
      const known = one.pair.leaves.length;
      const isSeen = async () =>
        one.pair.leaves.slice(known - 1).some(({ fingerprint }) => one.upstream.peers.has(fingerprint));
      await eventually(`the newest leaf through ${one.place}`, isSeen, log);
    }
  }
  function siteOf(place: string): Site {
    const found = traffic.sites.find((one) => one.place === place);
    assert.ok(found, place);
    return found;
  }
  const statusOf = async ({ certificate }: Site) =>
    (await traffic.agent.statuses()).find(({ name }) => name === certificate)?.status;
  const codeOf = async (site: Site, target: string) =>
    (await statusOf(site))?.mappings?.find(({ kind, name }) => kind === 'Service' && name === target)?.state;
  const liveOf = async (site: Site) => (await statusOf(site))?.conditions.find(({ type }) => type === 'Live');

  it('Envoy Gateway is killed while a leaf under a new root is published', async () => {
    const { ca, lab, sites } = traffic;
    await ca.istio.overlapRoot();
    await Promise.all(
      sites.map(({ pair }) => pair.until(() => pair.bundles.at(-1)?.length === 2, MINUTE, 'a bundle of two roots')),
    );
    for (const site of sites) site.renew();
    await leaves(sites, 1);
    let missed = 0;
    const counted = await during(sites, async () => {
      await presented(sites);
      await lab.envoyGateway.kill('SIGKILL');
      const before = sites.map((site) => newest(site)?.authorityKeyId);
      await ca.istio.overlapRoot();
      const isMoved = (site: Site, n: number) => newest(site)?.authorityKeyId !== before[n];
      await Promise.all(
        sites.map((site, n) => site.pair.until(() => isMoved(site, n), MINUTE, 'a leaf under the new root')),
      );
      missed = sites.filter((site) => !site.upstream.peers.has(newest(site)?.fingerprint ?? '')).length;
      await lab.envoyGateway.restart();
      await presented(sites);
    });
    await ca.istio.overlapRoot();
    clean(counted);
    assert.equal(missed, sites.length, 'nothing arrives while Envoy Gateway is dead');
    table.add(
      'Envoy Gateway killed −9 between a new root and the leaf under it',
      'the proxies go on with the old leaf and take the new one once Envoy Gateway is back; nothing is lost',
      `${counted.answered} answered, 0 failed, 0 plaintext`,
    );
  });

  it('Envoy is killed and started again between two leaves', async () => {
    const { sites } = traffic;
    for (const site of sites) {
      const before = { ...site.upstream.counts };
      await site.envoy?.kill('SIGKILL');
      await leaves([site], 1);
      await site.envoy?.restart();
      const counted = await during([site], async () => {
        await presented([site]);
        await leaves([site], 2);
      });
      clean(counted);
      assert.equal(site.upstream.counts.plaintext, before.plaintext);
      table.add(
        `Envoy killed −9, the certificate in the ${site.place}`,
        'once it is ready again it presents the leaf that was published meanwhile',
        `${counted.answered} answered, 0 failed, 0 plaintext`,
      );
    }
  });

  it('the ConfigMap with the bundle is deleted by hand', async () => {
    for (const site of traffic.sites) {
      const { bundle } = site;
      const before = await traffic.lab.read(bundle);
      const counted = await during([site], async () => {
        await traffic.lab.remove(bundle);
        const isBack = async () => {
          const now = await traffic.lab.read(bundle);
          return now.metadata.uid !== before.metadata.uid && now.data !== undefined;
        };
        await eventually('the ConfigMap', isBack, log);
        await leaves([site], 1);
        await presented([site]);
      });
      const { plaintext, failures } = counted;
      // A handshake that is under way when Envoy drops the cluster does not count.
      assert.equal(plaintext, 0, log());
      assert.deepEqual(
        failures.filter((one) => !/ ms: 50[03] $/.test(one)),
        [],
        'an answer of an upstream, or about one, has a text',
      );
      const again = await during([site], () => leaves([site], 1));
      clean(again);
      table.add(
        `the ConfigMap of the ${site.place}'s bundle deleted`,
        'it is written again; nothing is sent in plaintext',
        `${counted.answered} answered, ${failures.length} failed with an answer of Envoy's own, 0 plaintext`,
      );
    }
  });

  it('the key of the pair is overwritten by hand with one that does not fit', async () => {
    const other = (await authority('other')).key;
    for (const site of traffic.sites) {
      const path = `/api/v1/namespaces/${GATEWAYS}/secrets/${site.certificate}-identity`;
      const data = { 'tls.key': Buffer.from(other).toString('base64') };
      const counted = await during([site], async () => {
        await presented([site]);
        const { status, body } = await traffic.lab.apiserver.call('PATCH', path, { data }, { contentType: MERGE });
        assert.equal(status, 200);
        foreign.add(body.metadata.resourceVersion);
        const isBack = async () =>
          (await traffic.lab.apiserver.call('GET', path)).body.data['tls.key'] !== data['tls.key'];
        await eventually('the pair', isBack, log);
        await leaves([site], 1);
        await presented([site]);
      });
      clean(counted);
      table.add(
        `the key of the ${site.place}'s pair overwritten by hand`,
        'Envoy refuses the pair and goes on with the old one; the agent restores it; later leaves are presented',
        `${counted.answered} answered, 0 failed, 0 plaintext`,
      );
    }
  });

  it('the workload presents a valid certificate of another ServiceAccount', async () => {
    for (const site of traffic.sites) {
      const statuses = new Set<number>();
      const ask = async () => {
        const { status } = await fetch(site.url);
        statuses.add(status);
        return status;
      };
      site.impersonate(true);
      await eventually('a refusal', async () => (await ask()) === 503, log);
      const answered = site.upstream.requests;
      for (let n = 0; n < 20; n += 1) assert.equal(await ask(), 503);
      assert.equal(site.upstream.requests, answered, 'no request reaches the impostor');
      const why = async () => /"UF"[^\n]*SAN_matcher|SAN_matcher[^\n]*"UF"/.test(site.envoy?.log() ?? '');
      await eventually('the reason in the access log', why, () => site.envoy?.log() ?? '');
      site.impersonate(false);
      await eventually('an answer again', async () => (await ask()) === 200, log);
      table.add(
        `an impostor with a certificate of the same mesh behind the ${site.place}`,
        'it is refused by its name and receives no request',
        `${[...statuses].sort().join(' and ')}; UF, SAN matcher`,
      );
    }
  });

  describe('a policy of somebody else', () => {
    const site = () => siteOf('EnvoyProxy');
    const own = () => site().policy;
    const theirs = (name: string, target: string, account: string): ApplyObject =>
      policy(name, {
        ca: `${site().certificate}-ca`,
        target: { ...serviceRef(target), sectionName: 'https' },
        sans: [traffic.ca.istio.idOf(SHOP, account)],
      });
    const specOf = async (object: ApplyObject) => (await traffic.lab.read(object)).spec;

    it('that is newer changes nothing and is reported', async () => {
      const { lab } = traffic;
      const before = await specOf(own());
      const newer = theirs('newer', site().service, 'api');
      const counted = await during([site()], async () => {
        await lab.apply(newer);
        const isReported = async () => (await codeOf(site(), site().service)) === 'ERR_TARGET_FOREIGN_POLICY';
        await eventually('the report', isReported, log);
        await leaves([site()], 2);
        await lab.remove(newer);
        await eventually('the end of the report', async () => !(await isReported()), log);
      });
      clean(counted);
      assert.deepEqual(await specOf(own()), before);
      table.add(
        'a newer policy of somebody else',
        'ours stays in force; it is reported',
        `${counted.answered} answered, 0 failed`,
      );
    });

    it('that is older and turns to our Service is reported, ours stays, and Live is False until it is gone', async () => {
      const { lab } = traffic;
      const older = theirs('older', 'elsewhere', 'web');
      // Its age counts, so it is created before the policy that the agent writes for a further Service.
      await lab.apply(older);
      const { creationTimestamp } = (await lab.read(older)).metadata;
      const isOlder = async () => Date.now() > Date.parse(String(creationTimestamp)) + 1_000;
      await eventually('the next second, in which time is counted', isOlder);
      const [front, ...slices] = service('weblate', site().upstream, pod('late-1', 'web'));
      assert.ok(front);
      const { labels, annotations } = site().gateway.metadata;
      const late = { ...front, metadata: { ...front.metadata, labels, annotations } };
      await lab.apply(pod('late-1', 'web'), late, ...slices);
      const ours = policy(`${site().certificate}-weblate-https`);
      await eventually('our policy', async () => (await lab.read(ours)).kind === 'BackendTLSPolicy', log);
      await lab.apply(route('weblate', [site().gateway]));
      const url = new URL('/weblate', site().url).href;
      await eventually('an answer', async () => (await fetch(url)).status === 200, log);
      await eventually('Live', async () => (await liveOf(site()))?.reason === 'StatusAccepted', log);

      const before = await specOf(ours);
      const plaintext = site().upstream.counts.plaintext;
      await lab.apply(theirs('older', 'weblate', 'web'));
      await eventually('not Live', async () => (await liveOf(site()))?.reason === 'StatusRefused', log);
      assert.match((await liveOf(site()))?.message ?? '', /weblate-https.*Conflicted/s);
      await eventually(
        'the report',
        async () => (await codeOf(site(), 'weblate')) === 'ERR_TARGET_FOREIGN_POLICY',
        log,
      );
      assert.deepEqual(await specOf(ours), before, 'ours stays as it was');
      await lab.remove(older);
      await eventually('no refusal', async () => (await liveOf(site()))?.reason === 'StatusAccepted', log);
      await eventually('an answer', async () => (await fetch(url)).status === 200, log);
      assert.equal(site().upstream.counts.plaintext, plaintext, 'nothing was sent in plaintext');
      table.add(
        'an older policy of somebody else turns to our Service',
        'ours stays; ERR_TARGET_FOREIGN_POLICY, Live False until it is gone',
        '0 plaintext',
      );
    });
  });

  it('the API server has refused the agent nothing', async () => {
    assert.deepEqual(await traffic.agent.refusals(), []);
    for (const { pair } of traffic.sites) {
      const ours = pair.violations.filter((one) => !foreign.has(one.split(':')[0] ?? ''));
      assert.deepEqual(ours, []);
    }
  });
});
