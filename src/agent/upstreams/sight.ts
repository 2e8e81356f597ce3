import type { UpstreamStatus } from '../../core/status.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import type { ProbeResult } from '../../probe/probe.ts';
import type { ExpectedPeer } from './expected.ts';

/** A certificate may carry thousands of names. */
const LONGEST = 300;

/** What one handshake with an upstream shows. */
export function sightOf(address: string, result: ProbeResult, expected: ExpectedPeer): UpstreamStatus {
  const { code, peer } = result;
  const known = 'ids' in expected ? expected.ids.find((id) => peer.includes(id)) : undefined;
  const id = shown(known ?? peer[0]);
  const found = (state: string, message: string): UpstreamStatus => ({
    address,
    state,
    ...(id === undefined ? {} : { id }),
    message: safeMessage(message),
  });
  if (code === 'ERR_PROBE_UPSTREAM_UNTRUSTED') {
    return found(code, `${result.message}; check that the workload behind ${address} is in this mesh`);
  }
  // An upstream that refuses our certificate after it has shown its own has answered the question.
  const hasAnswered = code === 'accepted' || (code === 'ERR_PROBE_REFUSED' && peer.length > 0);
  if (!hasAnswered) return found(code, `${result.message}; the identity of the upstream is unknown`);
  const presents = `${address} presents ${shown(peer.join(', ')) ?? 'no name that can be read'}`;
  if (!('ids' in expected)) return found(expected.code, `${presents}; ${expected.message}`);
  if (known !== undefined) return { address, state: 'ok', id: shown(known) ?? known };
  const next = 'if that workload is the right one, list it in spec.upstreams.identities, else find out who replaced it';
  return found('ERR_PROBE_UPSTREAM_ID', `${presents}, not ${expected.ids.join(' or ')}; ${next}`);
}

/** Text of the upstream's choice: one line, not endless; undefined if there is none. */
function shown(text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  const line = text.replace(/[^ -~]+/g, '?');
  return line.length <= LONGEST ? line : `${line.slice(0, LONGEST - 3)}...`;
}
