import { CodedError } from '../../pki/der/error.ts';

export const ONBOARD_CODES = [
  'ERR_ONBOARD_NO_GATEWAY',
  'ERR_ONBOARD_WHICH_GATEWAY',
  'ERR_ONBOARD_UNSUPPORTED',
  'ERR_ONBOARD_NO_MESH',
  'ERR_ONBOARD_UNKNOWN_NAME',
  'ERR_ONBOARD_INVALID',
  'ERR_ONBOARD_UNSEEN',
  'ERR_ONBOARD_NOT_READY',
  'ERR_ONBOARD_NOT_OURS',
  'ERR_ONBOARD_NOT_CONFIRMED',
  'ERR_ONBOARD_LEFT_BEHIND',
  'ERR_OFFBOARD_IN_USE',
] as const;

export type OnboardCode = (typeof ONBOARD_CODES)[number];

/** Why the gateway cannot join or leave; the message ends with the next step. */
export class OnboardError extends CodedError<OnboardCode> {
  override readonly name = 'OnboardError';
}
