import { refOf } from '../../../core/object.ts';
import type { ConditionStatus } from '../../../core/status.ts';
import type { LiveCondition, Loading } from '../../loading.ts';
import type { EmissaryConfig } from '../spec/config.ts';
import { EMISSARY_RESOURCES as KINDS } from '../spec/resources.ts';
import { diagnosticsRequests, type ExpectedFiles, expectedFiles, judgeAnswers, type LoadedFiles } from './answer.ts';

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
