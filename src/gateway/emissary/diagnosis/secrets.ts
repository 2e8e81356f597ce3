import { describe, type KubeObject, refOf } from '../../../core/object.ts';
import { parsedValue } from '../../pair.ts';
import { decodeData } from '../../secret-data.ts';
import { namespacing, type SecretRef, shippingNamespacing, visible } from '../reading/context.ts';
import { readSecretFiles, SECRET_TYPES } from '../reading/secret-file.ts';
import type { DoctorCheck } from './check.ts';
import { HARM, harmOf, type InterpretedCluster, type SeenContext } from './world.ts';

const nameOf = ({ namespace, name }: SecretRef): string => `${namespace}/${name}`;

/** The Secrets that a context names, by the field that names them. */
function* secretsOf({ secret, caSecret }: SeenContext): Generator<{ field: string; ref: SecretRef }> {
  if (secret) yield { field: 'secret', ref: secret };
  if (caSecret) yield { field: 'ca_secret', ref: caSecret };
}

/** Existing Secrets, each once, with the context that names it. */
function* referencedSecrets(
  world: InterpretedCluster,
): Generator<{ context: SeenContext; field: string; secret: KubeObject }> {
  const seen = new Set<KubeObject>();
  for (const context of world.contexts) {
    for (const { field, ref } of secretsOf(context)) {
      const secret = world.find('Secret', ref);
      if (!secret || seen.has(secret)) continue;
      seen.add(secret);
      yield { context, field, secret };
    }
  }
}

export const secretChecks: readonly DoctorCheck[] = [
  {
    code: 'MC1101',
    severity: 'error',
    title: 'A TLSContext names a Secret that does not exist',
    *run(world) {
      if (!world.known('Secret')) return;
      for (const context of world.contexts) {
        for (const { field, ref } of secretsOf(context)) {
          const shadow =
            ref.name === 'istio-certs' && world.env.istioSecretDir && ref.namespace === world.env.namespace;
          if (world.find('Secret', ref) || shadow || literalOf(world, context, field)) continue;
          if (!world.snapshot.whole.has('Secret') && world.promises.some((one) => one.namespace === ref.namespace))
            continue;
          yield {
            object: context.object,
            message: `${field} names the Secret ${nameOf(ref)}, which does not exist: ${HARM}`,
            fix: `create the Secret first, then the TLSContext; never delete a Secret that a TLSContext names`,
          };
        }
      }
    },
  },
  {
    code: 'MC1102',
    severity: 'error',
    title: 'Emissary does not read Secrets of this type',
    *run(world) {
      for (const { secret } of referencedSecrets(world)) {
        const type = String(secret.type ?? 'Opaque');
        if (SECRET_TYPES.includes(type)) continue;
        yield {
          object: secret,
          message: `it has the type ${type}, which Emissary ignores silently, as if it did not exist: ${HARM}`,
          fix: `use one of ${SECRET_TYPES.join(', ')}`,
        };
      }
    },
  },
  {
    code: 'MC1103',
    severity: 'error',
    title: 'The identity Secret lacks its certificate or its key',
    *run(world) {
      for (const { field, secret, context } of referencedSecrets(world)) {
        if (field !== 'secret' || !SECRET_TYPES.includes(String(secret.type ?? 'Opaque'))) continue;
        const files = readSecretFiles(secret);
        if (files?.certificate && files.key) continue;
        const lacks = files?.certificate ? 'tls.key' : 'tls.crt';
        yield {
          object: secret,
          message: `it has no readable ${lacks} (base64 of UTF-8 text): ${harmOf(context.reading)}`,
          fix: `write tls.crt and tls.key in one update`,
        };
      }
    },
  },
  {
    code: 'MC1104',
    severity: 'error',
    title: 'The CA Secret has its roots under a key that Emissary does not read',
    *run(world) {
      for (const { field, secret, context } of referencedSecrets(world)) {
        if (field !== 'ca_secret' || readSecretFiles(secret)?.certificate) continue;
        const has = Object.keys(decodeData(secret)).join(', ') || 'nothing';
        yield {
          object: secret,
          message: `Emissary reads tls.crt of a CA Secret, and this one has ${has}: ${harmOf(context.reading)}`,
          fix: 'put the roots under tls.crt (under ca.crt as well, if other gateways read it)',
        };
      }
    },
  },
  {
    code: 'MC1105',
    severity: 'error',
    title: 'ca_secret holds no CA certificate',
    *run(world) {
      for (const { object, spec, pair } of world.contexts) {
        const roots = parsedValue(pair?.roots);
        if (!spec.caSecret || !roots || roots.some(({ isCa }) => isCa)) continue;
        yield {
          object,
          message: `ca_secret ${spec.caSecret} holds only end-entity certificates, so only these certificates are trusted: every handshake with another upstream certificate fails`,
          fix: 'name a Secret with the roots of the mesh; the identity Secret is not one',
        };
      }
    },
  },
  {
    code: 'MC1106',
    severity: 'warning',
    title: 'The roots are in the identity Secret, where Emissary misses a change of the roots alone',
    *run(world) {
      for (const { field, secret, context } of referencedSecrets(world)) {
        if (field !== 'secret' || context.spec.caSecret || !readSecretFiles(secret)?.root) continue;
        yield {
          object: secret,
          message:
            'root-cert.pem is not part of the name under which Emissary stores this Secret: when only the roots change, Envoy keeps the old ones until the leaf changes too',
          fix: 'put the roots into a Secret of their own, under tls.crt, and name it as ca_secret',
        };
      }
    },
  },
  {
    code: 'MC1107',
    severity: 'error',
    title: 'Only one half of the gateway reads a name with a dot as name and namespace',
    *run(world) {
      const { env } = world;
      for (const context of world.contexts) {
        const { spec, object } = context;
        if (namespacing(spec, env) === shippingNamespacing(spec, env)) continue;
        for (const name of [spec.secret, spec.caSecret]) {
          if (!name?.includes('.')) continue;
          yield {
            object,
            message: `the Module "ambassador" exists and does not set defaults.tls_secret_namespacing, so one half of the gateway looks for a Secret called ${name} and the other for ${name.slice(0, name.lastIndexOf('.'))} in another namespace: ${HARM}`,
            fix: 'set secret_namespacing: true on the TLSContext, or keep Secret and TLSContext in one namespace',
          };
        }
      }
    },
  },
  {
    code: 'MC1108',
    severity: 'error',
    title: 'The gateway looks for a Secret whose name has a dot in another namespace',
    *run(world) {
      for (const context of world.contexts) {
        for (const field of ['secret', 'ca_secret']) {
          const literal = literalOf(world, context, field);
          if (!literal) continue;
          yield {
            object: context.object,
            message: `${describe(refOf(literal))} exists, but Emissary reads what follows the last dot as a namespace and finds nothing: ${HARM}`,
            fix: 'rename the Secret without dots, or set secret_namespacing: false on the TLSContext',
          };
        }
      }
    },
  },
  {
    code: 'MC1109',
    severity: 'error',
    title: 'The gateway does not see the Secret',
    *run(world) {
      for (const { secret } of referencedSecrets(world)) {
        if (visible(secret, world.env)) continue;
        const { env } = world;
        const why =
          env.singleNamespace && secret.metadata.namespace !== env.namespace
            ? `the gateway watches only the namespace ${env.namespace} (AMBASSADOR_SINGLE_NAMESPACE)`
            : `its labels do not match AMBASSADOR_LABEL_SELECTOR=${env.labelSelector}`;
        yield {
          object: secret,
          message: `${why}: ${HARM}`,
          fix: 'move or label it; spec.labels of a MeshCertificate are put on everything that it writes',
        };
      }
    },
  },
  {
    code: 'MC1110',
    severity: 'warning',
    title: 'Files of the sidecar replace the Secret istio-certs',
    *run({ all, env, contexts }) {
      if (!env.istioSecretDir) return;
      for (const object of all('Secret')) {
        if (object.metadata.name !== 'istio-certs' || object.metadata.namespace !== env.namespace) continue;
        if (!contexts.some(({ secret }) => secret?.name === 'istio-certs')) continue;
        yield {
          object,
          message:
            'AMBASSADOR_ISTIO_SECRET_DIR is set: as soon as key.pem and cert-chain.pem exist in that directory, the gateway uses them under this name and not this Secret; without them, it uses this Secret',
          fix: 'rename the Secret, or remove the variable',
        };
      }
    },
  },
  {
    code: 'MC1111',
    severity: 'warning',
    title: 'A Secret that a TLSContext names is deleted together with its owner',
    *run(world) {
      for (const { secret } of referencedSecrets(world)) {
        const owner = secret.metadata.ownerReferences?.[0];
        if (!owner) continue;
        yield {
          object: secret,
          message: `it is deleted together with ${owner.kind} ${owner.name}; after that, ${HARM}`,
          fix: 'remove metadata.ownerReferences',
        };
      }
    },
  },
];

/** The Secret with exactly the name in the context, including dots, if it is not the one that is looked up. */
function literalOf(
  world: InterpretedCluster,
  { spec, object, secret, caSecret }: SeenContext,
  field: string,
): KubeObject | undefined {
  const [name, ref] = field === 'secret' ? [spec.secret, secret] : [spec.caSecret, caSecret];
  if (!name?.includes('.') || !ref || ref.name === name || world.find('Secret', ref)) return undefined;
  return world.find('Secret', { name, namespace: object.metadata.namespace ?? '' });
}
