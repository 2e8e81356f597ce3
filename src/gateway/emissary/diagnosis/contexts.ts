import { describe, type KubeObject, refOf } from '../../../core/object.ts';
import { fields, text } from '../../../mesh/kube-object.ts';
import { visible } from '../reading/context.ts';
import { answersTo, type EmissaryEnv } from '../reading/env.ts';
import { contextSpec } from '../reading/kinds.ts';
import type { DoctorCheck } from './check.ts';
import { harmOf, type InterpretedCluster, insteadOf, willWrite } from './world.ts';

const named = ({ mappings }: InterpretedCluster, name: string) => mappings.filter(({ spec }) => spec.tls === name);

export const contextChecks: readonly DoctorCheck[] = [
  {
    code: 'MC1001',
    severity: 'error',
    title: 'A Mapping names a TLSContext that does not exist',
    *run(world) {
      for (const mapping of world.mappings) {
        const { tls } = mapping.spec;
        // MC1305 covers this case.
        if (typeof tls !== 'string' || tls === 'true' || !world.known('TLSContext')) continue;
        if (!world.snapshot.whole.has('TLSContext') && world.promises.some((one) => willWrite(one, tls))) continue;
        if (mapping.upstream.context || world.all('TLSContext').some(({ metadata }) => metadata.name === tls)) continue;
        if (world.contexts.some(({ reading }) => reading.name === tls)) continue;
        yield {
          object: mapping.object,
          message: `it names the TLSContext ${tls}, which does not exist: ${insteadOf(mapping.upstream)}`,
          fix: `create the TLSContext ${tls}, or correct spec.tls`,
        };
      }
    },
  },
  {
    code: 'MC1002',
    severity: 'error',
    title: 'The TLSContext of a Mapping is not for this gateway',
    *run(world) {
      for (const mapping of world.mappings) {
        const { tls } = mapping.spec;
        if (typeof tls !== 'string' || mapping.upstream.context) continue;
        const all = world.all('TLSContext').filter(({ metadata }) => metadata.name === tls);
        const seen = all.filter((one) => visible(one, world.env));
        if (all.length === 0 || seen.some((one) => answersTo(contextSpec(one).ambassadorId, world.env.ambassadorId)))
          continue;
        const why =
          seen.length > 0
            ? `its ambassador_id does not name ${world.env.ambassadorId}`
            : world.env.singleNamespace && all.every(({ metadata }) => metadata.namespace !== world.env.namespace)
              ? `the gateway watches only the namespace ${world.env.namespace}`
              : `its labels do not match AMBASSADOR_LABEL_SELECTOR=${world.env.labelSelector}`;
        yield {
          object: mapping.object,
          message: `its TLSContext ${tls} exists, but this gateway does not use it (${why}): ${insteadOf(mapping.upstream)}`,
          fix: 'give the TLSContext the ambassador_id, the namespace and the labels of this gateway',
        };
      }
    },
  },
  {
    code: 'MC1003',
    severity: 'error',
    title: 'Two TLSContexts have the same name',
    *run({ contexts, all, env }) {
      const seen = all('TLSContext').filter(
        (one) => visible(one, env) && answersTo(contextSpec(one).ambassadorId, env.ambassadorId),
      );
      for (const name of new Set(seen.map(({ metadata }) => metadata.name))) {
        const same = seen.filter(({ metadata }) => metadata.name === name);
        const [first, ...others] = same.sort((a, b) => compare(a.metadata.namespace, b.metadata.namespace));
        if (!first || !contexts.some(({ reading }) => reading.name === name)) continue;
        for (const object of others) {
          yield {
            object,
            message: `${describe(refOf(first))} has the same name and comes first, so every Mapping with tls: ${name} uses that one, and Emissary reports no error`,
            fix: 'rename one of the two: names of TLSContexts are global across namespaces',
          };
        }
      }
    },
  },
  {
    code: 'MC1004',
    severity: 'error',
    title: 'cert_required is set on a TLSContext that originates TLS',
    *run({ contexts }) {
      for (const { object, spec, used } of contexts) {
        if (spec.certRequired === undefined || !used) continue;
        yield {
          object,
          message:
            'cert_required is for clients of the gateway; here it makes Envoy refuse the whole configuration, and every later change of any object is blocked',
          fix: 'remove cert_required; the upstream decides whether it requires a certificate',
        };
      }
    },
  },
  {
    code: 'MC1005',
    severity: 'warning',
    title: 'The upstream is not verified',
    *run(world) {
      for (const { object, spec, reading, pair } of world.contexts) {
        if (spec.caSecret ?? spec.caCertChainFile ?? pair?.roots) continue;
        if (named(world, reading.name).length === 0 && spec.secret === undefined) continue;
        yield {
          object,
          message: 'it has no ca_secret, so the gateway accepts any server as the upstream',
          fix: 'name a Secret with the roots of the mesh under tls.crt as ca_secret',
        };
      }
    },
  },
  {
    code: 'MC1006',
    severity: 'error',
    title: 'ca_secret without a client certificate',
    *run({ contexts }) {
      for (const { object, spec } of contexts) {
        if (!spec.caSecret || spec.secret || spec.certChainFile) continue;
        yield {
          object,
          message:
            'ca_secret alone makes the context unusable: "cannot validate client certs without TLS termination". Mappings that name it get plaintext, or TLS without verification',
          fix: 'also name a Secret with certificate and key as secret, even if the upstream requires none',
        };
      }
    },
  },
  {
    code: 'MC1007',
    severity: 'error',
    title: 'A TLSContext names both a Secret and files, or only one of the two files',
    *run({ contexts }) {
      for (const { object, spec } of contexts) {
        const both = spec.secret && spec.certChainFile;
        const half = spec.certChainFile && !spec.privateKeyFile;
        if (!both && !half) continue;
        yield {
          object,
          message: `${both ? 'secret and cert_chain_file cannot both be set' : 'cert_chain_file needs private_key_file'}, so Emissary refuses the context`,
          fix: 'keep secret, and remove the files',
        };
      }
    },
  },
  {
    code: 'MC1008',
    severity: 'warning',
    title: 'Certificates come from files, which the gateway does not watch',
    *run({ contexts }) {
      for (const { object, spec, used } of contexts) {
        if (!used || !(spec.certChainFile ?? spec.caCertChainFile)) continue;
        yield {
          object,
          message:
            'Emissary reads files when its configuration changes, not when the files change: it uses a rotated certificate late or never',
          fix: 'use secret and ca_secret',
        };
      }
    },
  },
  {
    code: 'MC1009',
    severity: 'error',
    title: 'min_tls_version is above max_tls_version',
    *run({ contexts }) {
      for (const { object, spec } of contexts) {
        if (!spec.minTlsVersion || !spec.maxTlsVersion || spec.minTlsVersion <= spec.maxTlsVersion) continue;
        yield {
          object,
          message: `${spec.minTlsVersion} is above ${spec.maxTlsVersion}: every handshake fails`,
          fix: 'swap them, or remove one',
        };
      }
    },
  },
  {
    code: 'MC1010',
    severity: 'error',
    title: 'The name of an originating TLSContext ties it to a Host',
    *run({ contexts, all, env }) {
      for (const { object, spec } of contexts) {
        const { name } = object.metadata;
        const host = name.endsWith('-context') && hostTiedTo(name, all('Host'), env);
        if (!host || spec.hosts.length > 0) continue;
        const title = describe(refOf(host));
        const own = text(fields(fields(host.spec).tlsSecret).name);
        yield {
          object,
          message:
            spec.secret === undefined || spec.secret === own
              ? `because of its name ${name}, Emissary also uses it for the clients of ${title}`
              : `because of its name ${name}, Emissary uses it as the TLS settings of ${title}. Its secret ${spec.secret} differs from the Host's ${own}, so Emissary drops the Host`,
          fix: 'rename the TLSContext, or name another one in spec.tlsContext of the Host',
        };
      }
    },
  },
  {
    code: 'MC1011',
    severity: 'error',
    title: 'The revocation list of a TLSContext is missing',
    *run({ contexts, known }) {
      for (const { object, spec, reading } of contexts) {
        const isMissing =
          reading.withoutFile.includes('crl') || reading.errors.some((error) => error.includes('revocation'));
        if (!isMissing || !known('Secret')) continue;
        yield {
          object,
          message: `crl_secret ${spec.crlSecret} has no crl.pem: ${harmOf(reading)}`,
          fix: 'create the Secret with the key crl.pem, or remove crl_secret',
        };
      }
    },
  },
  {
    code: 'MC1012',
    severity: 'error',
    title: 'A TLSContext has no certificate at all',
    *run({ mappings, contexts }) {
      for (const { object, reading } of contexts) {
        if (!reading.errors.some((error) => error.includes('no certificate information'))) continue;
        const user = mappings.find(({ spec }) => spec.tls === reading.name);
        if (!user) continue;
        yield {
          object,
          message: `it names neither a Secret nor files, so Emissary treats it as not defined: for ${describe(refOf(user.object))} ${insteadOf(user.upstream)}`,
          fix: 'name secret and ca_secret',
        };
      }
    },
  },
];

/** The Host whose clients get a context of this name: one with a certificate and without its own settings. */
function hostTiedTo(context: string, hosts: readonly KubeObject[], env: EmissaryEnv): KubeObject | undefined {
  return hosts.find((host) => {
    const { ambassador_id, tlsSecret, tlsContext, tls } = fields(host.spec);
    const seen = visible(host, env) && answersTo(ambassador_id, env.ambassadorId);
    const settings = text(fields(tlsContext).name) ?? tls;
    return (
      seen && `${host.metadata.name}-context` === context && text(fields(tlsSecret).name) && settings === undefined
    );
  });
}

const compare = (a = '', b = ''): number => (a < b ? -1 : a > b ? 1 : 0);
