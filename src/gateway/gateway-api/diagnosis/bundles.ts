import { describe, refOf } from '../../../core/object.ts';
import { toRfc3339 } from '../../../core/status.ts';
import { fields, type KubeObject, text } from '../../../mesh/kube-object.ts';
import { authorityOf } from '../../../pki/anchor.ts';
import { type Certificate, parseCertificates } from '../../../pki/certificate.ts';
import type { SecretUse } from '../../input.ts';
import { CORE_RESOURCES } from '../spec/resources.ts';
import type { GatewayApiCheck } from './check.ts';
import { promisedBundles } from './promises.ts';
import { type GatewayApiWorld, nameOf } from './world.ts';

const CONFIG_MAP = CORE_RESOURCES.configMaps.kind;

/** Envoy Gateway takes `ca.crt`, else `tls.crt`, else the only key. */
export function bundleText(bundle: KubeObject): string | undefined {
  const data = fields(bundle.data);
  const [only, ...more] = Object.keys(data);
  return text(data['ca.crt']) ?? text(data['tls.crt']) ?? (more.length === 0 ? text(data[only ?? '']) : undefined);
}

/** The certificates in a ConfigMap; undefined: it is missing, unknown, or holds none. */
export function rootsOf({ find }: GatewayApiWorld, ref: SecretUse): readonly Certificate[] | undefined {
  const bundle = find(CONFIG_MAP, ref);
  try {
    const roots = parseCertificates((bundle && bundleText(bundle)) ?? '');
    return roots.length === 0 ? undefined : roots;
  } catch {
    return undefined;
  }
}

/** Each ConfigMap that a policy names, once. */
function* bundlesOf({ policies }: GatewayApiWorld): Generator<{ policy: KubeObject; ref: SecretUse }> {
  const seen = new Set<string>();
  for (const { object, bundles } of policies) {
    for (const ref of bundles) {
      if (seen.has(nameOf(ref))) continue;
      seen.add(nameOf(ref));
      yield { policy: object, ref };
    }
  }
}

export const bundleChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC1701',
    severity: 'error',
    title: 'An expired root hides the valid one of the same key',
    *run(world) {
      const { now } = world.snapshot;
      for (const { ref } of bundlesOf(world)) {
        const first = new Map<string, Certificate>();
        for (const root of rootsOf(world, ref) ?? []) {
          const before = first.get(authorityOf(root));
          if (!before) first.set(authorityOf(root), root);
          const object = world.find(CONFIG_MAP, ref);
          if (!object || !before || before.notAfter > now || root.notAfter <= now) continue;
          yield {
            object,
            message: `its first root ${before.subject} ended on ${toRfc3339(before.notAfter)}, and the valid one of the same key comes after it: Envoy finds the expired one and refuses every upstream of this root with 503`,
            fix: 'remove the expired root, or write the newest first',
          };
        }
      }
    },
  },
  {
    code: 'MC1702',
    severity: 'error',
    title: 'A ConfigMap with roots holds no certificate',
    *run(world) {
      for (const { ref } of bundlesOf(world)) {
        const object = world.find(CONFIG_MAP, ref);
        if (!object || !bundleText(object) || rootsOf(world, ref)) continue;
        yield {
          object,
          message:
            'it has text that is not PEM of certificates: Envoy keeps the last good roots, a proxy that starts has none, and every status stays Accepted',
          fix: 'write the roots of the mesh as PEM under ca.crt',
        };
      }
    },
  },
  {
    code: 'MC1703',
    severity: 'error',
    title: 'A BackendTLSPolicy names a ConfigMap without roots',
    *run(world) {
      if (!world.known(CONFIG_MAP)) return;
      const promised = promisedBundles(world);
      for (const { policy, ref } of bundlesOf(world)) {
        const bundle = world.find(CONFIG_MAP, ref);
        if ((bundle && bundleText(bundle)) || (!bundle && promised.has(nameOf(ref)))) continue;
        yield {
          object: policy,
          message: `${bundle ? `${describe(refOf(bundle))} is empty` : `ConfigMap ${nameOf(ref)} does not exist`}: Envoy Gateway answers every request to its targets with 500 and sends nothing`,
          fix: 'write the roots of the mesh under ca.crt; ConfigMap first, then the policy',
        };
      }
    },
  },
];
