import { refOf } from '../../../core/object.ts';
import type { ConditionStatus } from '../../../core/status.ts';
import type { LiveCondition, Loading } from '../../loading.ts';
import type { EmissaryConfig } from '../spec/config.ts';
import { EMISSARY_RESOURCES as KINDS } from '../spec/resources.ts';
import { diagnosticsUrl, type ExpectedFiles, expectedFiles, judgeAnswer, type LoadedFiles } from './answer.ts';

/** The reasons of the condition Live; docs/runbook.md has an entry for each. */
const LIVE_REASONS = ['InUse', 'GatewayHasRead', 'OldCertificate', 'ContextUnknown', 'GatewaySilent'] as const;

/** On a TLSContext: only the change of its value matters. */
const NUDGE_ANNOTATION = 'meshcert.dev/nudge';
/** Different from the field manager of publications: a nudge must not look like a write of a publication. */
const NUDGE_FIELD_MANAGER = 'meshcert-nudge';

/** Emissary's diagnostics and Envoy's admin interface name the files that are in use. */
export const emissaryLoading: Loading<EmissaryConfig, ExpectedFiles, LoadedFiles> = {
  expected({ spec, config: { leftIn } }, desired) {
    const isUsed = leftIn === undefined || desired.some(({ object }) => object.kind === KINDS.tlsContexts.kind);
    return isUsed ? expectedFiles(spec, desired) : undefined;
  },
  answers: { endpoint: diagnosticsUrl, judge: judgeAnswer },
  condition: liveCondition,
  reasons: LIVE_REASONS,
  // A changed TLSContext alone in a batch is a complete reconfigure, which repairs the clusters that a batch of a
  // Secret and a Mapping left on the old certificate.
  nudge(desired, { file }, attempt) {
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
  if ('failure' in judged) {
    return say('Unknown', 'GatewaySilent', `The gateway did not report what it uses: ${judged.failure}.`);
  }
  const short = (file: string | undefined) => file?.slice(0, 12) ?? '';
  switch (judged.arrival) {
    case 'live':
      return judged.certain
        ? say('True', 'InUse', `Envoy has loaded the current ${secret} (${short(expected.file)}).`)
        : say('True', 'GatewayHasRead', `The gateway has read the current ${secret} (${short(expected.file)}).`);
    case 'stale': {
      const others = judged.seen.filter((file) => file !== expected.file).map(short);
      const which = others.length === 0 ? 'an old trust bundle' : `an old file (${others.join(', ')})`;
      const message = `The gateway still uses ${which} instead of the current ${secret}. Either a Secret and a Mapping changed at the same moment, and the agent nudges the gateway, or Envoy refused the update: see the log of the gateway.`;
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
