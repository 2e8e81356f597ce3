import type { ConditionStatus } from '../../core/status.ts';
import { type Fields, fields, type KubeObject, listOfFields, refOf, text } from '../../objects/objects.ts';
import { parseCertificates } from '../../pki/certificate.ts';
import type { ExpectedLoad, LiveCondition, Loaded, Loading, LoadingRequest } from '../gateway.ts';
import { decodeData } from '../publication.ts';
import { type EmissaryConfig, EMISSARY_RESOURCES as KINDS } from './config.ts';
import { secretFileName } from './reading.ts';

/** The reasons of the condition Live; docs/runbook.md has an entry for each. */
const LIVE_REASONS = ['InUse', 'GatewayHasRead', 'OldCertificate', 'ContextUnknown', 'GatewaySilent'] as const;

/** On a TLSContext: only the change of its value matters. */
const NUDGE_ANNOTATION = 'meshcert.dev/nudge';
/** Different from the field manager of publications: a nudge must not look like a write of a publication. */
const NUDGE_FIELD_MANAGER = 'meshcert-nudge';

/**
 * Emissary's diagnostics name the files that Envoy was given, its metrics when the certificates of Envoy's clusters end;
 * Envoy's admin interface names the files that Envoy has loaded.
 */
export const emissaryLoading: Loading<EmissaryConfig, ExpectedFiles, LoadedFiles> = {
  expected({ spec, config: { leftIn } }, desired) {
    const isUsed = leftIn === undefined || desired.some(({ object }) => object.kind === KINDS.tlsContexts.kind);
    return isUsed ? expectedFiles(spec, desired) : undefined;
  },
  answers: { requests: diagnosticsRequests, judge: judgeAnswers },
  condition: liveCondition,
  reasons: LIVE_REASONS,
  // A changed TLSContext alone in a batch is a complete reconfigure, which repairs the clusters that a batch of a
  // Secret and a Mapping left on the old certificate.
  nudge(desired, { file }, attempt, { users }) {
    if (users === 0) return [];
    const context = desired.find(({ object }) => object.kind === KINDS.tlsContexts.kind)?.object;
    if (!context) return [];
    const value = `${file.slice(0, 12)}.${attempt}`;
    const patch = { metadata: { annotations: { [NUDGE_ANNOTATION]: value } } };
    return [{ ref: refOf(context), patch, fieldManager: NUDGE_FIELD_MANAGER }];
  },
};

type LiveReason = (typeof LIVE_REASONS)[number];

interface Live extends LiveCondition {
  readonly reason: LiveReason;
}

/** The condition for the operator: whether the gateway uses what is published. */
function liveCondition(judged: LoadedFiles | { readonly failure: string }, expected: ExpectedFiles): Live {
  const say = (status: ConditionStatus, reason: LiveReason, message: string): Live => {
    return { status, reason, message };
  };
  const secret = `Secret ${expected.namespace}/${expected.secretName}`;
  const current = `the current ${secret} (${expected.file.slice(0, 12)})`;
  if ('failure' in judged) {
    return say('Unknown', 'GatewaySilent', `The gateway did not report what it uses: ${judged.failure}.`);
  }
  switch (judged.arrival) {
    case 'live':
      return say('True', 'InUse', `Envoy uses ${current}.`);
    case 'read':
      return say(
        'Unknown',
        'GatewayHasRead',
        `Emissary has read ${current}, but it is not known whether Envoy uses it: ${judged.missing}. See GatewayHasRead in docs/runbook.md.`,
      );
    case 'stale': {
      const which = judged.old.length === 0 ? 'an old trust bundle' : judged.old.slice(0, 3).join('; ');
      const message = `The gateway still uses something older than ${current}: ${which}. Either a Secret and a Mapping changed at the same moment, and the agent nudges the gateway, or Envoy refused the update: see the log of the gateway.`;
      return say('False', 'OldCertificate', message);
    }
    case 'absent':
      return say(
        'False',
        'ContextUnknown',
        `The gateway knows no TLSContext with ${secret}; compare ambassador_id and AMBASSADOR_LABEL_SELECTOR, and run \`meshcert doctor\`.`,
      );
  }
}

/** The files that Emissary makes from a publication's Secrets: a changed Secret gets a file with another name. */
export interface ExpectedFiles extends ExpectedLoad {
  readonly namespace: string;
  readonly secretName: string;
  readonly file: string;
  readonly caSecretName: string;
  readonly caFile: string;
  /** Both in PEM. */
  readonly chain: string;
  readonly trust: string;
}

/** `live`: these files and no others. `certain`: the answer came from Envoy itself. */
interface LoadedFiles extends Loaded {
  /** What it has for the identity that is not current: names of files, or ends of certificates. */
  readonly old: readonly string[];
  /** Of `read`: why it is not known what Envoy uses. */
  readonly missing?: string;
  /** How many of Envoy's clusters use the identity, as far as it is known. */
  readonly users: number;
}

interface SecretFile {
  readonly namespace: string;
  readonly secret: string;
  readonly file: string;
}

/** `…/<namespace>/secrets-decoded/<secret>/<SHA-1>.crt`, anywhere in an answer. */
const PATH = /\/([^/]+)\/secrets-decoded\/([^/]+)\/([0-9A-F]{40})\.(?:root\.)?(?:crt|key|user)$/;

/** The desired files, as the gateway will name them; undefined for a publication without the two Secrets. */
export function expectedFiles(
  { secretName, caSecretName }: { readonly secretName: string; readonly caSecretName: string },
  desired: readonly { readonly object: KubeObject }[],
): ExpectedFiles | undefined {
  const find = (name: string) =>
    desired.find(({ object }) => object.kind === 'Secret' && object.metadata.name === name)?.object;
  const [pair, trust] = [find(secretName), find(caSecretName)];
  if (!pair || !trust) return undefined;
  const name = (secret: KubeObject) => secretFileName(fields(secret.data) as Readonly<Record<string, string>>);
  const pem = (secret: KubeObject) => decodeData(secret)['tls.crt'] ?? '';
  const [file, caFile] = [name(pair), name(trust)];
  const namespace = pair.metadata.namespace ?? '';
  return {
    digest: `${file}.${caFile}`,
    namespace,
    secretName,
    file,
    caSecretName,
    caFile,
    chain: pem(pair),
    trust: pem(trust),
  };
}

/**
 * Reads Envoy's `/certs`; or Emissary's diagnostics (`/ambassador/v0/diag/?json=true`) and, of its `/metrics`, the lines
 * that Envoy wrote about its certificates. Throws for anything else.
 */
export function judgeAnswers([answer, metrics]: readonly unknown[], expected: ExpectedFiles): LoadedFiles | undefined {
  if (answer === undefined) return undefined;
  const { certificates, tlscontexts, cluster_info: clusters, groups } = fields(answer);
  if (certificates !== undefined) return { ...judgeFiles(certificates, expected), certain: true };
  if (tlscontexts === undefined) throw new TypeError('the answer has neither tlscontexts nor certificates');
  // A cluster that Emissary took from its cache has the files of an earlier TLSContext.
  const read = judgeFiles([tlscontexts, clusters], expected);
  if (read.arrival !== 'live') return read;
  const users = clustersWith(expected, { contexts: listOfFields(tlscontexts), clusters, groups });
  return { ...read, ...judgeGauges(users, Array.isArray(metrics) ? metrics : [], expected), users: users.mine.size };
}

/** By the names of the files: the newest, and no others. */
function judgeFiles(reported: unknown, expected: ExpectedFiles): LoadedFiles {
  const files = filesIn(reported);
  const of = (secret: string) => [
    ...new Set(
      files.filter((one) => one.namespace === expected.namespace && one.secret === secret).map(({ file }) => file),
    ),
  ];
  const [seen, trust] = [of(expected.secretName), of(expected.caSecretName)];
  const old = seen.filter((file) => file !== expected.file);
  const isCurrent = old.length === 0 && trust.every((file) => file === expected.caFile);
  const arrival = seen.length === 0 ? 'absent' : isCurrent ? 'live' : 'stale';
  return { arrival, certain: false, old: old.map((file) => `file ${file.slice(0, 12)}`), users: seen.length };
}

/** The names under which Envoy counts for clusters: those that use the identity, and the others. */
interface Users {
  readonly mine: ReadonlySet<string>;
  readonly others: ReadonlySet<string>;
}

function clustersWith(
  { namespace, secretName }: ExpectedFiles,
  {
    contexts,
    clusters,
    groups,
  }: { readonly contexts: readonly Fields[]; readonly clusters: unknown; readonly groups: unknown },
): Users {
  const isMine = (value: unknown) =>
    filesIn(value).some((one) => one.namespace === namespace && one.secret === secretName);
  const mine = new Set<string>();
  const others = new Set<string>();
  for (const cluster of Object.values(fields(clusters)).map(fields)) {
    const name = text(cluster.stats_name) ?? text(cluster.envoy_name) ?? '';
    (isMine(cluster.tls_context) ? mine : others).add(name);
  }
  const names = contexts.filter(isMine).map(({ name }) => name);
  // The clusters of TCPMappings are not among the others.
  for (const group of Object.values(fields(groups)).map(fields)) {
    if (group.kind !== 'IRTCPMappingGroup') continue;
    for (const { cluster_service: service } of listOfFields(group.mappings)) {
      const name = text(group.stats_name) ?? (text(service) ?? '').replace(/[^0-9A-Za-z_]/g, '_');
      (names.includes(group.tls) ? mine : others).add(name);
    }
  }
  return { mine, others };
}

const EXPIRATION = 'envoy_cluster_ssl_certificate_expiration_unix_time_seconds';
const WARMING = 'envoy_cluster_warming_state';
const GAUGE = /^(\w+)\{([^{}]{0,1000})\} (\d{1,15})$/;
const CLUSTER = /(?:^|,)envoy_cluster_name="([^"]{1,300})"/;
const CERTIFICATE = /(?:^|,)envoy_tls_certificate="([^"]{1,300})"/;

/** By what Envoy says about each cluster: whether it still warms up, and when its certificate and its roots end. */
function judgeGauges(
  { mine, others }: Users,
  lines: readonly unknown[],
  expected: ExpectedFiles,
): Pick<LoadedFiles, 'arrival' | 'certain' | 'old' | 'missing'> {
  const unknown = (missing: string) => ({ arrival: 'read', certain: false, old: [], missing }) as const;
  if (mine.size === 0) return unknown('no route of the gateway uses it');
  const seconds = (text: string) => parseCertificates(text).map(({ notAfter }) => Math.floor(notAfter / 1000));
  const [end] = seconds(expected.chain);
  const roots = seconds(expected.trust);
  // Envoy 1.37 shows the end of the first root, Envoy 1.40 the earliest.
  const trusted = [roots[0], Math.min(...roots)];
  const shown = new Set<string>();
  const old: string[] = [];
  for (const line of lines) {
    const [, gauge, labels = '', value] = GAUGE.exec(String(line)) ?? [];
    const cluster = CLUSTER.exec(labels)?.[1] ?? '';
    if (!mine.has(cluster)) continue;
    const number = Number(value);
    if (gauge === WARMING && number !== 0) old.push(`cluster ${cluster}, which still warms up`);
    if (gauge !== EXPIRATION) continue;
    const isRoot = CERTIFICATE.exec(labels)?.[1]?.startsWith('unnamed_ca_cert_');
    if (!isRoot) shown.add(cluster);
    if (isRoot ? trusted.includes(number) : number === end) continue;
    if (others.has(cluster))
      return unknown(`routes with and without this certificate share the name ${cluster} in /metrics`);
    const what = isRoot ? 'roots' : 'a certificate';
    old.push(`cluster ${cluster}, with ${what} until ${new Date(number * 1000).toISOString()}`);
  }
  if (old.length > 0) return { arrival: 'stale', certain: true, old };
  const hidden = [...mine].filter((cluster) => !shown.has(cluster));
  if (hidden.length === 0) return { arrival: 'live', certain: true, old };
  return unknown(`its /metrics does not show which certificate Envoy uses for ${hidden.slice(0, 3).join(', ')}`);
}

function filesIn(value: unknown): SecretFile[] {
  if (typeof value === 'string') {
    const [, namespace, secret, file] = PATH.exec(value) ?? [];
    return namespace && secret && file ? [{ namespace, secret, file }] : [];
  }
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(filesIn) : [];
}

const DIAGNOSTICS = '/ambassador/v0/diag/?json=true';
/** Where Envoy's admin interface listens in Emissary's pods. */
const ADMIN_PORT = '8001';

/** A URL without a path gets the paths of the server that answers on its port. */
export function diagnosticsRequests(given: string): readonly LoadingRequest[] {
  const url = new URL(given);
  if (url.pathname !== '/' || url.search !== '') return [{ url }];
  if (url.port === ADMIN_PORT) return [{ url: new URL('/certs', url) }];
  return [{ url: new URL(DIAGNOSTICS, url) }, { url: new URL('/metrics', url), wanted: [EXPIRATION, WARMING] }];
}
