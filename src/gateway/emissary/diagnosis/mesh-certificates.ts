import { CONSENT_ANNOTATION, consents } from '../../../core/consent.ts';
import { describe, OWNER_LABEL, refOf } from '../../../core/object.ts';
import { fields, hasLabels, text } from '../../../mesh/kube-object.ts';
import { ownerLabel } from '../../owner.ts';
import { parseService } from '../reading/service.ts';
import { contextNameProblem, secretNameProblem } from '../spec/names.ts';
import type { DoctorCheck } from './check.ts';
import { insteadOf, willWrite } from './world.ts';

export const meshCertificateChecks: readonly DoctorCheck[] = [
  {
    code: 'MC5001',
    severity: 'error',
    title: 'Two MeshCertificates write the same object',
    *run({ promises }) {
      const owners = new Map<string, string>();
      for (const { object, namespace, secretName, contextName } of promises) {
        for (const key of [`Secret ${namespace}/${secretName}`, `TLSContext ${contextName}`]) {
          const earlier = owners.get(key);
          owners.set(key, earlier ?? describe(refOf(object)));
          if (earlier === undefined) continue;
          yield {
            object,
            message: `${key} is also written by ${earlier}; the agent refuses this one${key.startsWith('TLS') ? ' (names of TLSContexts are global)' : ''}`,
            fix: 'give one of them other names (secretName, tlsContext.name)',
          };
        }
      }
    },
  },
  {
    code: 'MC5002',
    severity: 'error',
    title: 'An object that the MeshCertificate would write belongs to another owner',
    *run({ promises, find }) {
      for (const { object, namespace, secretName, contextName } of promises) {
        const own = ownerLabel(object.metadata);
        for (const [kind, name] of [
          ['Secret', secretName],
          ['TLSContext', contextName],
        ] as const) {
          const existing = find(kind, { name, namespace });
          if (!existing || existing.metadata.labels?.[OWNER_LABEL] === own) continue;
          yield {
            object,
            message: `${describe(refOf(existing))} exists and is not its own (${OWNER_LABEL} is ${existing.metadata.labels?.[OWNER_LABEL] ?? 'absent'}); the agent never overwrites it, so nothing is published`,
            fix: 'choose another name, or hand the object over (docs/migrate-consul-connector.md); do not delete it while a gateway refers to it',
          };
        }
      }
    },
  },
  {
    code: 'MC5003',
    severity: 'error',
    title: 'The gateway would misread a name',
    *run({ promises }) {
      for (const { object, secretName, contextName } of promises) {
        const caSecret = text(fields(object.spec).caSecretName) ?? `${object.metadata.name}-ca`;
        const problems = [secretNameProblem(secretName), secretNameProblem(caSecret), contextNameProblem(contextName)];
        for (const message of problems) {
          if (message !== undefined) yield { object, message, fix: 'choose a name of letters, digits and dashes' };
        }
      }
    },
  },
  {
    code: 'MC5004',
    severity: 'warning',
    title: 'Deleting the MeshCertificate would leave Mappings without their Secret',
    *run({ promises, mappings }) {
      for (const { object, contextName } of promises) {
        if (fields(object.spec).deletionPolicy !== 'Delete') continue;
        const users = mappings.filter(({ spec }) => spec.tls === contextName);
        const [first] = users;
        if (!first) continue;
        yield {
          object,
          message: `deletionPolicy is Delete, and ${users.length} Mapping${users.length === 1 ? '' : 's'} (such as ${describe(refOf(first.object))}) name its TLSContext: without it they fall back to plaintext or to no verification`,
          fix: 'keep Retain, and use meshcert offboard to take a gateway out of the mesh',
        };
      }
    },
  },
  {
    code: 'MC5005',
    severity: 'warning',
    title: 'The MeshCertificate reaches no Mapping',
    *run({ promises, mappings, all }) {
      if (all('Mapping').length + all('TCPMapping').length === 0) return;
      for (const promise of promises) {
        const { object, contextName } = promise;
        const wanted = fields(fields(fields(fields(object.spec).mappings).selector).matchLabels);
        const selects = Object.keys(wanted).length > 0;
        const reached = mappings.some(
          ({ spec, object: mapping }) =>
            (typeof spec.tls === 'string' && willWrite(promise, spec.tls)) || (selects && hasLabels(mapping, wanted)),
        );
        if (reached) continue;
        yield {
          object,
          message: `no Mapping names the TLSContext ${contextName}, and no Mapping is selected: the certificate is published and not used`,
          fix: `set tls: ${contextName} on Mappings, or spec.mappings.selector here`,
        };
      }
    },
  },
  {
    code: 'MC5006',
    severity: 'error',
    title: 'The MeshCertificate is not valid',
    *run({ all, snapshot }) {
      for (const object of all('MeshCertificate')) {
        for (const message of snapshot.validate?.(object) ?? []) {
          yield { object, message, fix: 'see docs/reference, or meshcert schema' };
        }
      }
    },
  },
  {
    code: 'MC5007',
    severity: 'error',
    title: 'A selected Mapping is not served over mTLS',
    *run({ promises, mappings, snapshot }) {
      for (const { object, namespace } of promises) {
        const { selector, namespaces } = fields(fields(object.spec).mappings);
        const wanted = fields(fields(selector).matchLabels);
        const places = Array.isArray(namespaces) ? namespaces.map(String) : [namespace];
        if (Object.keys(wanted).length === 0 || fields(object.spec).paused === true) continue;
        for (const { object: mapping, upstream, spec } of mappings) {
          const { namespace: place = '' } = mapping.metadata;
          if (!hasLabels(mapping, wanted) || !(places.includes('*') || places.includes(place))) continue;
          // Before the objects are applied, the agent has not set spec.tls yet.
          const applied = snapshot.whole.has('Mapping');
          if (upstream.mode === 'mtls' || (upstream.mode === 'tls-unverified' && !applied)) continue;
          const https = parseService(spec.service).scheme === 'https';
          yield {
            object: mapping,
            message: `${describe(refOf(object))} selects it, and ${insteadOf(upstream)}`,
            fix: !consents(mapping, namespace)
              ? `it does not consent to MeshCertificates of another namespace; its owner can annotate it: ${CONSENT_ANNOTATION}=${namespace}`
              : https
                ? 'find out why spec.tls is not set, or not usable: status.mappings of the MeshCertificate (meshcert status)'
                : `write https://${upstream.host}:${upstream.port} as its service; without https:// the agent does not set spec.tls`,
          };
        }
      }
    },
  },
];
