import type { Gateway, Loading, Onboarding, RouteState, Wording } from '../gateway.ts';

import { BATCH_GAP_MS, EMISSARY_RESOURCES, type EmissaryConfig, emissaryFields, secretNameProblem } from './config.ts';
import { emissaryDiagnosis } from './diagnosis.ts';
import { emissaryLoading } from './loading.ts';
import { emissaryOnboarding } from './onboarding.ts';
import { contextSpec } from './reading.ts';
import { contextRefs, desiredContexts, emissaryRoutes, type Target } from './routes.ts';

const wording: Wording = {
  everything: 'Mappings and TLSContexts',
  release: 'spec.tls of a Mapping',
  orphan: 'deleted a TLSContext that no Mapping needs',
  missing: 'Mappings that name it get plaintext, or TLS without a certificate',
  reasons: ['AllMappings', 'NoMapping', 'MappingsLeftAlone'],
  referenced(mappings, left) {
    const [first] = left;
    if (first) {
      const message = `${left.length} of ${mappings.length} Mapping(s) cannot use it, first ${nameOf(first)}: ${first.state}: ${first.message}`;
      return { status: 'False', reason: 'MappingsLeftAlone', message };
    }
    if (mappings.length > 0) {
      return { status: 'True', reason: 'AllMappings', message: `${mappings.length} Mapping(s) use it.` };
    }
    const message = 'No Mapping names the TLSContext; set spec.tls of a Mapping, or spec.mappings.selector here.';
    return { status: 'False', reason: 'NoMapping', message };
  },
};

const nameOf = ({ namespace, name }: RouteState): string => `${namespace}/${name}`;

/** Emissary-ingress and Ambassador Edge Stack: a TLSContext names the Secrets, and Mappings name the TLSContext. */
export const emissary: Gateway<EmissaryConfig, Target> = {
  ...emissaryFields,
  title: 'Emissary-ingress or Edge Stack',
  resources: Object.values(EMISSARY_RESOURCES),
  desired: desiredContexts,
  references: contextRefs,
  secretNameProblem,
  routes: emissaryRoutes,
  batchGapMs: BATCH_GAP_MS,
  secretsNamedBy(object) {
    const { secret, caSecret } = contextSpec(object);
    const { namespace = '' } = object.metadata;
    return [secret, caSecret].flatMap((name) => (name === undefined ? [] : [{ namespace, name }]));
  },
  definitions: 'the Emissary-ingress CRDs',
  wording,
  diagnosis: emissaryDiagnosis,
  loading: emissaryLoading as Loading<EmissaryConfig>,
  onboarding: emissaryOnboarding as Onboarding<EmissaryConfig>,
};
