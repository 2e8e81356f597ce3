import { type KubeObject, OWNER_LABEL } from '../../../core/object.ts';
import { emergencyAt } from '../../../core/schedule.ts';
import { toRfc3339 } from '../../../core/status.ts';
import type { Severity } from '../../../mesh/object-check.ts';
import { authorityOf, MOST_IN_ORDER } from '../../../pki/anchor.ts';
import type { Certificate } from '../../../pki/certificate.ts';
import { findPath, reachesRoot } from '../../../pki/chain.ts';
import { describeKeyType, type KeyType } from '../../../pki/key-type.ts';
import { parsedValue, type SecretPair } from '../../pair.ts';
import type { DoctorCheck } from './check.ts';
import { FROZEN, type InterpretedCluster } from './world.ts';

const DAY = 86_400_000;
/** How long before its end a root causes a warning: replacing one takes weeks. */
const ROOT_WARNING_MS = 60 * DAY;
const RSA_LEAST_BITS = 2048;
const CURVES = ['P-256', 'P-384'];

interface JudgedPair {
  readonly pair: SecretPair;
  /** The identity Secret, or the context if there is none. */
  readonly secret: KubeObject;
  readonly caSecret: KubeObject;
}

function* pairs(world: InterpretedCluster): Generator<JudgedPair> {
  const seen = new Set<KubeObject>();
  for (const { pair, secret, caSecret, object } of world.contexts) {
    const found = secret && world.find('Secret', secret);
    if (!pair || (found && seen.has(found))) continue;
    if (found) seen.add(found);
    yield { pair, secret: found ?? object, caSecret: (caSecret && world.find('Secret', caSecret)) ?? found ?? object };
  }
}

const named = ({ subject, names }: Certificate): string => names.uris[0] ?? names.dns[0] ?? (subject || 'no name');

/** The key types that Envoy loads for its own side, and that an Envoy with default settings accepts from clients. */
function keyProblem(type: KeyType): { readonly severity?: Severity; readonly message: string } | undefined {
  if (type.type === 'other' && type.name === 'ed25519')
    return {
      message: 'the key is Ed25519: Envoy loads it, but sidecars, which are also Envoys, refuse it from clients',
    };
  if (type.type === 'ec' && type.curve === 'P-521')
    return {
      severity: 'warning',
      message: 'the key is P-521, which sidecars refuse from clients in TLS 1.3',
    };
  if (type.type === 'ec' && CURVES.includes(type.curve)) return undefined;
  if (type.type === 'rsa' && type.bits >= RSA_LEAST_BITS) return undefined;
  return { message: `the key is ${describeKeyType(type)}. ${FROZEN}` };
}

/** The agent overwrites what somebody else changes in a Secret that it publishes. */
const isPublished = ({ metadata }: KubeObject): boolean => metadata.labels?.[OWNER_LABEL] !== undefined;
const PUBLISHED_FIX =
  'meshcert publishes this Secret: find out why it was not renewed (meshcert status), and do not edit it';

/** What an ending root does to its successor in the bundle, as the end of a sentence about the successor. */
function hides(isOrdered: boolean, isOver: boolean): string {
  const refuses = isOrdered
    ? 'Envoy finds the expired one first and refuses every handshake'
    : `Envoy, which sorts bundles of more than ${MOST_IN_ORDER} roots, can find the expired one first and refuse every handshake`;
  const place = isOrdered ? 'comes after it in the bundle' : 'is in the bundle too';
  return `${place}: ${isOver ? '' : 'from then on '}${refuses}`;
}

export const pairChecks: readonly DoctorCheck[] = [
  {
    code: 'MC1201',
    severity: 'error',
    title: 'Certificate, key or roots cannot be parsed',
    *run(world) {
      for (const { pair, secret, caSecret } of pairs(world)) {
        const parts = [
          ['tls.crt', pair.chain, secret],
          ['tls.key', pair.key, secret],
          ['the roots', pair.roots, caSecret],
        ] as const;
        for (const [what, part, object] of parts) {
          if (!part || !('problem' in part)) continue;
          yield {
            object,
            message: `${what}: ${part.problem}. ${FROZEN}`,
            fix: 'write PEM with one private key and nothing else',
          };
        }
      }
    },
  },
  {
    code: 'MC1202',
    severity: 'error',
    title: 'The key does not belong to the certificate',
    *run(world) {
      for (const { pair, secret } of pairs(world)) {
        const [leaf, key] = [parsedValue(pair.chain)?.[0], parsedValue(pair.key)];
        if (!leaf || !key || leaf.publicKeyFingerprint === key.publicKeyFingerprint) continue;
        yield {
          object: secret,
          message: `tls.key does not belong to tls.crt. ${FROZEN}`,
          fix: 'write both in one update',
        };
      }
    },
  },
  {
    code: 'MC1203',
    severity: 'error',
    title: 'The gateway or the sidecars do not accept this type of key',
    *run(world) {
      for (const { pair, secret } of pairs(world)) {
        const key = parsedValue(pair.key);
        const problem = key && keyProblem(key.keyType);
        if (!problem) continue;
        yield { object: secret, ...problem, fix: 'use ECDSA P-256, or RSA with 2048 bits or more' };
      }
    },
  },
  {
    code: 'MC1204',
    severity: 'warning',
    title: 'The key starts with an EC PARAMETERS block',
    *run(world) {
      for (const { pair, secret } of pairs(world)) {
        if (!/^\s*-----BEGIN EC PARAMETERS-----/.test(pair.keyPem ?? '')) continue;
        yield {
          object: secret,
          severity: world.env.forceSecretValidation ? 'error' : 'warning',
          message:
            'Emissary parses the first PEM block of tls.key as a key and reports this Secret as invalid; with AMBASSADOR_FORCE_SECRET_VALIDATION it withholds it, which makes its Mappings plaintext',
          fix: 'write the key as PKCS#8, one block',
        };
      }
    },
  },
  {
    code: 'MC1205',
    severity: 'error',
    title: 'A certificate of the chain has expired',
    *run(world) {
      const { now } = world.snapshot;
      for (const { pair, secret } of pairs(world)) {
        for (const [at, one] of (parsedValue(pair.chain) ?? []).entries()) {
          if (now < one.notAfter) continue;
          const what = at === 0 ? 'the leaf' : 'an intermediate';
          yield {
            object: secret,
            message: `${what} (${named(one)}) expired at ${toRfc3339(one.notAfter)}: new handshakes fail, and open connections hide it for a while`,
            fix:
              at === 0
                ? 'find out why it was not renewed: meshcert status, meshcert renew'
                : isPublished(secret)
                  ? PUBLISHED_FIX
                  : 'remove expired intermediates from tls.crt',
          };
        }
      }
    },
  },
  {
    code: 'MC1206',
    severity: 'warning',
    title: 'The leaf is in the last tenth of its lifetime',
    *run(world) {
      const { now } = world.snapshot;
      for (const { pair, secret } of pairs(world)) {
        const leaf = parsedValue(pair.chain)?.[0];
        if (!leaf || now >= leaf.notAfter || now < emergencyAt(leaf)) continue;
        yield {
          object: secret,
          message: `it expires at ${toRfc3339(leaf.notAfter)} and should have been renewed already: renewal does not work`,
          fix: 'find out why: meshcert status, then the log of the agent',
        };
      }
    },
  },
  {
    code: 'MC1207',
    severity: 'error',
    title: 'The leaf is not valid yet',
    *run(world) {
      const { now } = world.snapshot;
      for (const { pair, secret } of pairs(world)) {
        const leaf = parsedValue(pair.chain)?.[0];
        if (!leaf || now >= leaf.notBefore) continue;
        yield {
          object: secret,
          message: `it is valid from ${toRfc3339(leaf.notBefore)} on: upstreams refuse it until then`,
          fix: 'correct the clocks of the CA and of the nodes',
        };
      }
    },
  },
  {
    code: 'MC1208',
    severity: 'warning',
    title: 'The identity does not chain to the roots of its TLSContext',
    *run(world) {
      for (const { pair, secret } of pairs(world)) {
        const [[leaf, ...between] = [], roots] = [parsedValue(pair.chain), parsedValue(pair.issuers)];
        if (!leaf || !roots?.some(({ isCa }) => isCa)) continue;
        const path = findPath(leaf, between, roots, world.snapshot.now);
        if (reachesRoot(path)) continue;
        yield {
          object: secret,
          message: `no path leads from the leaf to a root of ca_secret: either intermediates are missing in tls.crt, or upstreams of the same mesh will not verify`,
          fix: 'write the whole chain, and the roots of the mesh that issued it',
        };
      }
    },
  },
  {
    code: 'MC1209',
    severity: 'error',
    title: 'A trusted root has expired or expires soon',
    *run(world) {
      const { now } = world.snapshot;
      for (const { pair, caSecret } of pairs(world)) {
        const roots = parsedValue(pair.roots) ?? [];
        const alive = roots.filter(({ notAfter }) => now < notAfter);
        const isOrdered = roots.length <= MOST_IN_ORDER;
        for (const [at, root] of roots.entries()) {
          const left = root.notAfter - now;
          const life = root.notAfter - root.notBefore;
          if (left > Math.min(ROOT_WARNING_MS, life / 5) || !root.isCa) continue;
          const isHidden = (isOrdered ? roots.slice(at + 1) : roots).some(
            (other) => other !== root && authorityOf(root) === authorityOf(other) && other.notAfter > root.notAfter,
          );
          const harm =
            alive.length === 0
              ? ', and no other root is left: no upstream can be verified'
              : isHidden
                ? `, and its successor with the same subject and key ${hides(isOrdered, left <= 0)}`
                : '';
          yield {
            object: caSecret,
            severity: harm === '' ? 'warning' : 'error',
            message: `the root ${named(root)} ${left <= 0 ? 'expired' : 'expires'} at ${toRfc3339(root.notAfter)}${harm}`,
            fix: isHidden
              ? isOrdered
                ? 'remove it from the bundle, or put its successor before it'
                : `remove it from the bundle; another order helps only up to ${MOST_IN_ORDER} roots`
              : left <= 0
                ? isPublished(caSecret)
                  ? PUBLISHED_FIX
                  : alive.length === 0
                    ? 'put the current roots of the mesh in its place; without any root, Mappings that name the TLSContext get plaintext, or TLS without verification'
                    : 'remove it from the bundle'
                : 'rotate the root of the mesh: trust the new one first, sign with it later',
          };
        }
      }
    },
  },
];
