import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { parseManifest } from '../../src/doctor/doctor.ts';
import { type KubeObject, keyOf, refOf } from '../../src/objects/objects.ts';
import { PrivateKey } from '../../src/pki/key.ts';

const DAY = 86_400_000;
const HOUR = 3_600_000;
/** The identities that `${leaf}` and `${their.leaf}` have. */
export const ISTIO = 'spiffe://cluster.local/ns/emissary/sa/emissary';
export const THEIRS = 'spiffe://cluster.local/ns/shop/sa/edge';
export const LINKERD = 'emissary.emissary.serviceaccount.identity.linkerd.cluster.local';

/** The values of `${…}` in docs/checks.md, and the CA behind them. */
export function material() {
  const now = Date.now();
  const ca = SandboxCa.root({ name: 'mesh' });
  const other = SandboxCa.root({ name: 'other' });
  const expiring = SandboxCa.root({ name: 'expiring', notBefore: now - 300 * DAY, notAfter: now + 10 * DAY });
  const [key, theirs] = [PrivateKey.generate(), PrivateKey.generate()];
  const ed25519 = generateKeyPairSync('ed25519');
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 });
  const rsa = PrivateKey.fromKeyObject(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey);
  const leaf = (from: number, to: number) =>
    ca.issue(key, { uris: [ISTIO], notBefore: now + from, notAfter: now + to });
  const sec1 = key.keyObject.export({ type: 'sec1', format: 'pem' });
  // The OID of P-256, as `openssl ecparam -genkey` puts it before the key.
  const parameters = '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n';
  const texts: Readonly<Record<string, string>> = {
    leaf: leaf(-HOUR, DAY).pem,
    key: key.toPem(),
    roots: ca.certificate.pem,
    'their.leaf': ca.issue(theirs, { uris: [THEIRS], lifetimeMs: DAY }).pem,
    'their.key': theirs.toPem(),
    garbage: '-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n',
    'other.key': PrivateKey.generate().toPem(),
    'other.roots': other.certificate.pem,
    'expired.first': ca.renew({ notBefore: now - 2 * DAY, notAfter: now - DAY }).certificate.pem + ca.certificate.pem,
    'roots.and.expiring': ca.certificate.pem + expiring.certificate.pem,
    'expired.leaf': leaf(-2 * DAY, -HOUR).pem,
    'late.leaf': leaf(-DAY, HOUR).pem,
    'future.leaf': leaf(HOUR, DAY).pem,
    'linkerd.leaf': ca.issue(key, { dns: [LINKERD], lifetimeMs: DAY }).pem,
    'ed25519.leaf': ca.issue(ed25519.publicKey, { uris: [ISTIO], lifetimeMs: DAY }).pem,
    'ed25519.key': ed25519.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    'weak.leaf': ca.issue(weak.publicKey, { uris: [ISTIO], lifetimeMs: DAY }).pem,
    'weak.key': weak.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    'rsa.leaf': ca.issue(rsa, { dns: [LINKERD], lifetimeMs: DAY }).pem,
    'rsa.key': rsa.toPem(),
    'parameters.key': `${parameters}${sec1}`,
  };
  return { ca, other, texts };
}

export interface Example {
  readonly code: string;
  readonly title: string;
  readonly section: string;
  /** The objects that precede it. */
  readonly base: string;
  readonly yaml: string;
}

/** Codes of checks of Gateway API, whose examples start from the objects of its chapter too. */
export const GATEWAY_API = /^MC(1[5-8]|51)/;

/** The objects that precede every example, those of Gateway API, and the examples by their headings. */
export function readExamples(): { base: string; gatewayApi: string; examples: readonly Example[] } {
  const page = readFileSync(new URL('../../docs/checks.md', import.meta.url), 'utf8');
  const [checks = ''] = page.split('# How each check is tested');
  const [intro = '', ...sections] = checks.split(/^## /m);
  const base = yamlIn(intro);
  const gatewayApi = `${base}---\n${yamlIn(checks.split(/^# Gateway API$/m)[1] ?? '')}`;
  const examples = sections.map((section) => {
    const [, code = '', title = ''] = /^(MC\d{4}) (.*)$/m.exec(section) ?? [];
    return { code, title, section, base: GATEWAY_API.test(code) ? gatewayApi : base, yaml: yamlIn(section) };
  });
  return { base, gatewayApi, examples };
}

export function exampleOf(code: string): string {
  const found = readExamples().examples.find((one) => one.code === code);
  if (!found) throw new TypeError(`docs/checks.md has no example of ${code}`);
  return found.yaml;
}

const yamlIn = (text: string): string => /```yaml\n([\s\S]*?)```/.exec(text)?.[1] ?? '';

/** Objects of YAML texts; later ones replace earlier ones of the same name. */
export function objectsOf(texts: Readonly<Record<string, string>>, ...yaml: readonly string[]): KubeObject[] {
  const byKey = new Map<string, KubeObject>();
  for (const text of yaml) {
    const filled = text.replace(/\$\{([a-z0-9.]+)( as text)?\}/g, (_, name: string, asText?: string) => {
      const value = texts[name];
      if (value === undefined) throw new TypeError(`docs/checks.md uses \${${name}}, which stands for nothing`);
      return asText ? JSON.stringify(value) : Buffer.from(value).toString('base64');
    });
    const { found, skipped } = parseManifest(filled, 'docs/checks.md');
    if (skipped[0]) throw new TypeError(`${skipped[0].line}: ${skipped[0].message}`);
    for (const { object } of found) byKey.set(keyOf(refOf(object)), object);
  }
  return [...byKey.values()];
}
