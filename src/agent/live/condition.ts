import type { Condition } from '../../core/status.ts';
import type { ExpectedFiles, JudgedContext } from './answer.ts';

/** The reasons of the condition Live; docs/runbook.md has an entry for each. */
export const LIVE_REASONS = ['InUse', 'GatewayHasRead', 'OldCertificate', 'ContextUnknown', 'GatewaySilent'] as const;

export type LiveReason = (typeof LIVE_REASONS)[number];

type Live = Pick<Condition, 'type' | 'status' | 'message'> & { readonly reason: LiveReason };

/** What an operator is told about whether the gateway uses what stands in the cluster. */
export function liveCondition(judged: JudgedContext | { readonly failure: string }, expected: ExpectedFiles): Live {
  const say = (status: Condition['status'], reason: LiveReason, message: string): Live => {
    return { type: 'Live', status, reason, message };
  };
  const secret = `Secret ${expected.namespace}/${expected.secretName}`;
  if ('failure' in judged) {
    return say('Unknown', 'GatewaySilent', `The gateway did not report what it uses: ${judged.failure}.`);
  }
  const short = (file: string | undefined) => file?.slice(0, 12) ?? '';
  switch (judged.arrival) {
    case 'live':
      return judged.fromEnvoy
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
