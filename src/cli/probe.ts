import { parseArgs } from 'node:util';
import { adapters } from '../../adapters/index.ts';
import { type ProbeResult, probe as probeUpstream } from '../agent/probe.ts';
import { API_VERSION, KIND, type MeshCertificate, type ProbeWish } from '../config/mesh-certificate.ts';
import { validateObject } from '../config/validate.ts';
import { readPublication } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import { systemClock } from '../mesh/clock.ts';
import type { Certificate } from '../pki/certificate.ts';
import type { PrivateKey } from '../pki/key.ts';
import { CLUSTER_OPTIONS, CLUSTER_USAGE, clusterOf, namespaceOf } from './cluster-flags.ts';
import { type Command, type Io, UsageError } from './command.ts';
import { fromSecret } from './inspect-input.ts';

const USAGE = `usage: meshcert probe NAME [flags]
       meshcert probe --secret NAME [--ca-secret NAME] --address HOST:PORT

Shows a published certificate to a real upstream, as the gateway would, and
checks the upstream's own name, which Emissary cannot.

  --address HOST:PORT    default: spec.probe.address of the MeshCertificate
  --id ID                SPIFFE ID or DNS name that the upstream must present
  --sni NAME             server name to send
  --http PATH            send a GET request too
  --secret NAME          an identity Secret instead of a MeshCertificate
  --ca-secret NAME       its trust bundle; default: ca.crt of the Secret
  -o text|json
${CLUSTER_USAGE}

Exit code: 0 when the upstream accepts, 1 when it does not.
`;

export const probe: Command = {
  name: 'probe',
  summary: 'Show a published certificate to a real upstream',
  usage: USAGE,
  run,
};

async function run(argv: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      ...CLUSTER_OPTIONS,
      address: { type: 'string' },
      id: { type: 'string' },
      sni: { type: 'string' },
      http: { type: 'string' },
      secret: { type: 'string' },
      'ca-secret': { type: 'string' },
      output: { type: 'string', short: 'o', default: 'text' },
    },
  });
  const [name] = positionals;
  if ((name === undefined) === (values.secret === undefined)) {
    throw new UsageError('name one MeshCertificate, or a Secret with --secret');
  }
  const namespace = namespaceOf(values, io);
  const kube = clusterOf(values, io);
  try {
    const { pair, bundle, wish, tls } =
      name === undefined
        ? await ofSecret(kube, namespace, values.secret ?? '', values['ca-secret'], io)
        : await ofCertificate(kube, namespace, name, io);
    const address = values.address ?? wish?.address;
    if (address === undefined) throw new UsageError('--address is needed: the MeshCertificate has no spec.probe');
    const full: ProbeWish = {
      ...(wish?.address === address ? wish : {}),
      address,
      ...(values.id === undefined ? {} : { id: values.id }),
      ...(values.sni === undefined ? {} : { sni: values.sni }),
      ...(values.http === undefined ? {} : { http: { path: values.http } }),
    };
    const result = await probeUpstream(full, pair, bundle, { clock: systemClock, tls, signal: io.signal });
    io.stdout.write(values.output === 'json' ? `${JSON.stringify(result)}\n` : `${text(result)}\n`);
    return result.code === 'accepted' ? 0 : 1;
  } finally {
    kube.close();
  }
}

interface Probed {
  readonly pair: { readonly key: PrivateKey; readonly chain: readonly Certificate[] };
  readonly bundle: readonly Certificate[];
  readonly wish?: ProbeWish | undefined;
  readonly tls?: { readonly alpnProtocols?: string; readonly minTlsVersion?: string; readonly maxTlsVersion?: string };
}

async function ofCertificate(kube: Kube, namespace: string, name: string, io: Io): Promise<Probed> {
  const found = await kube.get({ apiVersion: API_VERSION, kind: KIND, namespace, name }, io.signal);
  if (!found) throw new Error(`MeshCertificate ${namespace}/${name} does not exist; see -n for the namespace`);
  const valid = validateObject(found, adapters);
  if (!valid.ok) throw new Error(`MeshCertificate ${namespace}/${name} is not valid: see meshcert status`);
  const { spec }: MeshCertificate = valid.value;
  const secret = (secretName: string) => ({ apiVersion: 'v1', kind: 'Secret', namespace, name: secretName });
  const objects = await Promise.all(
    [spec.caSecretName, spec.secretName].map((secretName) => kube.get(secret(secretName), io.signal)),
  );
  const { identity, bundle } = readPublication(
    spec,
    objects.filter((object) => object !== undefined),
  );
  if (!identity)
    throw new Error(`Secret ${namespace}/${spec.secretName} holds no certificate yet; see meshcert status`);
  const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
  return { pair: identity, bundle, wish: spec.probe, ...(adapter ? { tls: adapter.tls } : {}) };
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

function text({ code, message, peer, tlsVersion, httpStatus }: ProbeResult): string {
  const facts = [
    ...(peer.length > 0 ? [`upstream: ${peer.join(', ')}`] : []),
    ...(tlsVersion === undefined ? [] : [tlsVersion]),
    ...(httpStatus === undefined ? [] : [`HTTP ${httpStatus}`]),
  ];
  return `${code === 'accepted' ? 'ok' : code}: ${message}${facts.length === 0 ? '' : ` (${facts.join('; ')})`}`;
}
