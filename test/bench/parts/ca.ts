import { type Istio, startIstio } from '../../../sandbox/istio/istio.ts';
import type { PilotAgent } from '../../../sandbox/istio/pilot-agent.ts';
import { readIstioToken } from '../../support/istio-token.ts';
import { preciseNow, servePart } from './part.ts';

let istio: Istio;
let pilot: PilotAgent;
let pushes = 0;

/** Much longer than a run. Leaves of one second would end alike, and the agent publishes none that gains nothing. */
const DAY_MS = 86_400_000;

const methods = {
  async start() {
    istio = await startIstio({ authenticate: (token) => readIstioToken(token) });
    const { address, serverName, rootPem } = istio;
    return { address, serverName, rootPem };
  },
  /** Calls of CreateCertificate so far. */
  requests: () => istio.requests,
  async pilot({ socket, id }: { socket: string; id: string }) {
    pilot = await istio.startPilotAgent({ socket, id });
  },
  /** Pushes a new leaf; returns when it was made and handed to the stream. */
  push() {
    istio.setLeafLifetime(DAY_MS + 1_000 * ++pushes);
    pilot.rotate();
    return preciseNow();
  },
};

export type Ca = typeof methods;
servePart(methods);
