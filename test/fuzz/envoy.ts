import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peer } from '../peers/build.ts';
import { type EnvoyObject, startEnvoy } from '../peers/servers/envoy.ts';
import { headerListener, plainCluster } from '../peers/servers/envoy-config.ts';
import { freePorts } from '../peers/servers/loopback.ts';
import { discard, output, scratchDir } from '../peers/servers/process.ts';
import { type Case, makeCase } from './cases.ts';
import type { CrlCase } from './crls.ts';

/** One start of Envoy takes as long as several dozen pairs. */
const AT_ONCE = 200;
const TLS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3';
const HTTP = 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager';
const ROUTER = 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router';

/** The cases that Envoy cannot load as the pair and the bundle of a cluster, with its messages. */
export async function notLoaded(cases: readonly Case[]): Promise<ReadonlyMap<Case, string>> {
  const refused = new Map<Case, string>();
  const dir = scratchDir('fuzz-envoy');
  const check = async (some: readonly Case[]): Promise<void> => {
    const [first] = some;
    if (!first) return;
    const why = await validate(dir, some);
    if (why === undefined) return;
    if (some.length === 1) {
      refused.set(first, why);
      return;
    }
    const half = Math.ceil(some.length / 2);
    await check(some.slice(0, half));
    await check(some.slice(half));
  };
  try {
    for (let at = 0; at < cases.length; at += AT_ONCE) await check(cases.slice(at, at + AT_ONCE));
  } finally {
    discard(dir);
  }
  return refused;
}

async function validate(dir: string, cases: readonly Case[]): Promise<string | undefined> {
  const clusters = cases.map((one, n) => clusterOf(one, `case-${n}`, 1));
  const file = join(dir, 'envoy.json');
  await writeFile(file, JSON.stringify({ static_resources: { clusters } }));
  try {
    await output(await peer('envoy'), ['--mode', 'validate', '-c', file, '--log-level', 'error']);
    return undefined;
  } catch (error) {
    const lines = (error as Error).message.split('\n').slice(1);
    return lines.find((line) => /fail|invalid|error/i.test(line)) ?? lines.join(' ');
  }
}

/**
 * Sends a request for each case through an Envoy that originates mTLS with the pair to one that requires a client
 * certificate under the bundle. Returns those that were not answered, with the response instead.
 */
export async function notAnswered(cases: readonly Case[]): Promise<ReadonlyMap<Case, string>> {
  const { front, back } = await freePorts('front', 'back');
  const own = makeCase(0, Date.now(), []);
  await using envoy = await startEnvoy({
    listeners: [
      headerListener(front, 'x-cluster'),
      upstreamListener(
        back,
        cases.map(({ roots }, n) => ({ name: `case-${n}`, pair: own, roots })),
      ),
    ],
    clusters: cases.map((one, n) => clusterOf(one, `case-${n}`, back)),
  });
  const refused = new Map<Case, string>();
  for (const [n, one] of cases.entries()) {
    const response = await fetch(`http://127.0.0.1:${front}/`, { headers: { 'x-cluster': `case-${n}` } });
    const body = await response.text();
    if (response.status !== 200) refused.set(one, `${response.status} ${body}\n${envoy.log().slice(-500)}`);
  }
  return refused;
}

/**
 * What an Envoy does that verifies upstreams by the bundle and the CRLs of each case: `used` if it accepts the good
 * upstream and refuses the revoked one; otherwise what it does instead.
 */
export async function crlsAtEnvoy(cases: readonly CrlCase[]): Promise<readonly string[]> {
  const { front, back } = await freePorts('front', 'back');
  const both = cases.flatMap((one, n) => [
    { name: `good-${n}`, pair: one.good, one },
    { name: `revoked-${n}`, pair: one.revoked, one },
  ]);
  await using envoy = await startEnvoy({
    listeners: [headerListener(front, 'x-cluster'), upstreamListener(back, both)],
    clusters: both.map(({ name, one }) => ({
      ...plainCluster(name, back),
      transport_socket: upstreamSocket(name, {
        validation_context: { trusted_ca: { inline_string: one.roots }, crl: { inline_string: one.crls } },
      }),
    })),
  });
  const ask = async (name: string): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${front}/`, { headers: { 'x-cluster': name } });
    return `${response.status} ${(await response.text()).slice(0, 200)}`;
  };
  const answers: string[] = [];
  for (const n of cases.keys()) {
    const [good, revoked] = [await ask(`good-${n}`), await ask(`revoked-${n}`)];
    const isUsed = good.startsWith('200') && revoked.startsWith('503');
    answers.push(isUsed ? 'used' : `the good one: ${good}; the revoked one: ${revoked}`);
  }
  if (answers.every((answer) => answer !== 'used')) answers[0] += `\n${envoy.log().slice(-500)}`;
  return answers;
}

const pemOf = ({ chain, key }: Pick<Case, 'chain' | 'key'>): EnvoyObject => ({
  certificate_chain: { inline_string: chain },
  private_key: { inline_string: key },
});

const clusterOf = (one: Case, name: string, port: number): EnvoyObject => ({
  ...plainCluster(name, port),
  transport_socket: upstreamSocket(name, {
    tls_certificates: [pemOf(one)],
    // The upstream presents its own certificate here: only its verdict on ours counts.
    validation_context: { trusted_ca: { inline_string: one.roots }, trust_chain_verification: 'ACCEPT_UNTRUSTED' },
  }),
});

const upstreamSocket = (sni: string, context: EnvoyObject): EnvoyObject => ({
  name: 'envoy.transport_sockets.tls',
  typed_config: {
    '@type': `${TLS}.UpstreamTlsContext`,
    sni,
    common_tls_context: { tls_params: { tls_maximum_protocol_version: 'TLSv1_3' }, ...context },
  },
});

/** By the name that a client asks for. With roots, it requires a client certificate under them. */
interface UpstreamServer {
  readonly name: string;
  readonly pair: Pick<Case, 'chain' | 'key'>;
  readonly roots?: string;
}

function upstreamListener(port: number, servers: readonly UpstreamServer[]): EnvoyObject {
  const answer = { status: 200, body: { inline_string: 'accepted' } };
  const http = {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': HTTP,
      stat_prefix: 'upstream',
      http_filters: [{ name: 'envoy.filters.http.router', typed_config: { '@type': ROUTER } }],
      route_config: {
        virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, direct_response: answer }] }],
      },
    },
  };
  return {
    name: 'upstream',
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    listener_filters: [
      {
        name: 'envoy.filters.listener.tls_inspector',
        typed_config: {
          '@type': 'type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector',
        },
      },
    ],
    filter_chains: servers.map(({ name, pair, roots }) => ({
      filter_chain_match: { server_names: [name] },
      filters: [http],
      transport_socket: {
        name: 'envoy.transport_sockets.tls',
        typed_config: {
          '@type': `${TLS}.DownstreamTlsContext`,
          require_client_certificate: roots !== undefined,
          common_tls_context: {
            tls_certificates: [pemOf(pair)],
            ...(roots === undefined ? {} : { validation_context: { trusted_ca: { inline_string: roots } } }),
          },
        },
      },
    })),
  };
}
