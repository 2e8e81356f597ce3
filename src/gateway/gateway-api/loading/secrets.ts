import { fields, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { LoadingRequest } from '../../loading.ts';
import { comparable, type ExpectedPublication, type SeenPublication } from './expected.ts';

/** The certificates that a proxy has loaded: an Envoy that refuses an update keeps and shows the ones before. */
const SECRETS = '/config_dump?resource=dynamic_active_secrets';

/** Envoy's admin interface; a URL without a path gets that of the secrets. */
export function secretsRequest(given: string): readonly LoadingRequest[] {
  const url = new URL(given);
  return [{ url: url.pathname === '/' && url.search === '' ? new URL(SECRETS, url) : url }];
}

/**
 * By the secrets of one proxy. It uses some of the policies, as its routes need them; undefined: it uses none. Throws
 * for any other answer.
 */
export function judgeSecrets([answer]: readonly unknown[], expected: ExpectedPublication): SeenPublication | undefined {
  if (answer === undefined) return undefined;
  const { configs } = fields(answer);
  // An empty list is absent from Envoy's answer.
  if (configs !== undefined && !Array.isArray(configs)) throw new TypeError('the answer is no config dump of Envoy');
  if (configs === undefined && Object.keys(fields(answer)).length > 0) {
    throw new TypeError('the answer has no configs; ask the admin interface of Envoy');
  }
  const loaded = new Map(
    listOfFields(configs).flatMap(({ name, secret }) => (text(name) ? [[String(name), secret]] : [])),
  );
  const { pairName, bundleNames, certificates } = expected;
  const found = [pairName, ...bundleNames.keys()].filter((name) => loaded.has(name));
  if (!found.includes(pairName) || found.length === 1) return undefined;
  const old = found.filter((name) => comparable(certificatesOf(loaded.get(name))) !== certificates.get(name));
  const seen = { certain: true, outdated: old.flatMap((name) => bundleNames.get(name) ?? []) };
  if (old.length === 0) {
    const why = `Envoy has loaded the pair and ${found.length - 1} trust bundle(s)`;
    return { ...seen, arrival: 'live', reason: 'ProxyLoaded', why };
  }
  const why = `Envoy has not loaded the current ${old.join(', ')}; its log, and that of Envoy Gateway, say why it refused an update`;
  return { ...seen, arrival: 'stale', reason: 'ProxyOutdated', why };
}

/** The PEM of a pair or of a bundle. */
function certificatesOf(secret: unknown): string {
  const { tls_certificate: pair, validation_context: bundle } = fields(secret);
  const { inline_bytes: bytes, inline_string: plain } = fields(
    fields(pair).certificate_chain ?? fields(bundle).trusted_ca,
  );
  return text(plain) ?? Buffer.from(text(bytes) ?? '', 'base64').toString();
}
