import { systemClock } from '../async/clock.ts';
import { API_VERSION, KIND, type ProbeSpec } from '../config/schema/mesh-certificate.ts';
import { validateObject } from '../config/validate.ts';
import { upstreamRoots } from '../gateway/publication.ts';
import { gateways } from '../gateways.ts';
import type { Kube } from '../kube/api.ts';
import { type Adapter, tlsDefaults } from '../mesh/adapter.ts';
import { printable } from '../mesh/secrets.ts';
import { publishedPair } from '../onboard/apply.ts';
import type { Certificate } from '../pki/certificate.ts';
import type { PrivateKey } from '../pki/key.ts';
import { type ProbeResult, probe as probeUpstream } from '../probe/probe.ts';
import { adaptersWith } from './adapter-files.ts';
import { adapterFlag, choice, hostAndPort, parsed, text, UsageError, type Values } from './flags.ts';
import { fromSecret } from './inspect.ts';
import { CLUSTER_FLAGS, clusterOf, declare, type Io, namespaceOf } from './program.ts';

const flags = {
  adapter: adapterFlag(),
  address: parsed(
    '--address <host:port>',
    'Upstream (default: spec.probe.address of the MeshCertificate)',
    hostAndPort,
  ),
  id: text('--id <id>', 'SPIFFE ID or DNS name that the upstream must present'),
  sni: text('--sni <name>', 'Server name to send'),
  http: parsed('--http <path>', 'Path of a GET request to send as well', pathOf),
  secret: text('--secret <name>', 'Identity Secret, instead of a MeshCertificate'),
  caSecret: text('--ca-secret <name>', 'Secret with the trust bundle (default: ca.crt of the Secret)'),
  output: choice('-o, --output <format>', 'Output format', ['text', 'json'], 'text'),
  ...CLUSTER_FLAGS,
};

export type ProbeFlags = Values<typeof flags>;

export const probe = declare({
  name: 'probe',
  description:
    'Connects to a real upstream with a published certificate, as the gateway would, and checks the name of the upstream, which ' +
    'the gateway may not be able to.',
  usage: ['NAME [flags]', '--secret NAME --address HOST:PORT [flags]'],
  parameters: [{ name: 'name', description: 'MeshCertificate', completes: 'certificates', replacedBy: ['secret'] }],
  flags,
  examples: [
    { does: 'Try the upstream that the MeshCertificate names', line: 'meshcert probe mesh -n emissary' },
    {
      does: 'Try another upstream, and require its name',
      line: 'meshcert probe mesh --address web.shop:443 \\\n  --id spiffe://cluster.local/ns/shop/sa/web',
    },
    {
      does: 'Try a Secret, with a request',
      line: 'meshcert probe --secret mesh-identity --address web.shop:443 --http /healthz',
    },
  ],
  exitCodes: '0  the upstream accepts the certificate\n1  it does not, or there is no certificate\n2  wrong usage',
  run: async ({ flags, args }, io) => runProbe(flags, args, io),
});

function pathOf(text: string): string {
  if (!text.startsWith('/') || /\s/.test(text)) throw new Error('expected a path such as /healthz');
  return text;
}

export async function runProbe(flags: ProbeFlags, args: readonly string[], io: Io): Promise<number> {
  const [name] = args;
  if ((name === undefined) === (flags.secret === undefined)) {
    throw new UsageError('name one MeshCertificate, or a Secret with --secret');
  }
  const namespace = namespaceOf(flags, io);
  const kube = clusterOf(flags, io);
  try {
    const { pair, bundle, probeSpec, tls } =
      name === undefined
        ? await ofSecret(kube, namespace, flags.secret ?? '', flags.caSecret, io)
        : await ofCertificate(kube, await adaptersWith(flags.adapter), namespace, name, io);
    const address = flags.address ?? probeSpec?.address;
    if (address === undefined) throw new UsageError('--address is needed: the MeshCertificate has no spec.probe');
    const full: ProbeSpec = {
      ...(probeSpec?.address === address ? probeSpec : {}),
      address,
      ...(flags.id === undefined ? {} : { id: flags.id }),
      ...(flags.sni === undefined ? {} : { sni: flags.sni }),
      ...(flags.http === undefined ? {} : { http: { path: flags.http } }),
    };
    const result = await probeUpstream(full, pair, bundle, { clock: systemClock, tls, signal: io.signal });
    io.stdout.write(flags.output === 'json' ? `${JSON.stringify(result)}\n` : `${printable(lines(result))}\n`);
    return result.code === 'accepted' ? 0 : 1;
  } finally {
    kube.close();
  }
}

interface Probed {
  readonly pair: { readonly key: PrivateKey; readonly chain: readonly Certificate[] };
  readonly bundle: readonly Certificate[];
  readonly probeSpec?: ProbeSpec | undefined;
  readonly tls?: { readonly alpnProtocols?: string; readonly minTlsVersion?: string; readonly maxTlsVersion?: string };
}

async function ofCertificate(
  kube: Kube,
  adapters: readonly Adapter[],
  namespace: string,
  name: string,
  io: Io,
): Promise<Probed> {
  const found = await kube.get({ apiVersion: API_VERSION, kind: KIND, namespace, name }, io.signal);
  if (!found) throw new Error(`MeshCertificate ${namespace}/${name} does not exist; see -n for the namespace`);
  const valid = validateObject(found, adapters, gateways);
  if (!valid.ok) throw new Error(`MeshCertificate ${namespace}/${name} is not valid: see meshcert status`);
  const { spec } = valid.value;
  const published = await publishedPair(valid.value, kube, io.signal);
  const { identity } = published;
  if (!identity)
    throw new Error(`Secret ${namespace}/${spec.secretName} holds no certificate yet; see meshcert status`);
  const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
  return {
    pair: identity,
    bundle: upstreamRoots(published),
    probeSpec: spec.probe,
    ...(adapter ? { tls: tlsDefaults(adapter, spec.mesh.config) } : {}),
  };
}

async function ofSecret(
  kube: Kube,
  namespace: string,
  name: string,
  caName: string | undefined,
  io: Io,
): Promise<Probed> {
  const { key, chain, bundle, from } = await fromSecret(kube, { namespace, name, caName }, io.signal);
  if (!key) throw new Error(`${from} holds no private key`);
  return { pair: { key, chain }, bundle };
}

function lines({ code, message, peer, tlsVersion, httpStatus }: ProbeResult): string {
  const facts = [
    ...(peer.length > 0 ? [`upstream: ${peer.join(', ')}`] : []),
    ...(tlsVersion === undefined ? [] : [tlsVersion]),
    ...(httpStatus === undefined ? [] : [`HTTP ${httpStatus}`]),
  ];
  return `${code === 'accepted' ? 'ok' : code}: ${message}${facts.length === 0 ? '' : ` (${facts.join('; ')})`}`;
}
