import { type Istio, startIstio } from '../../../adapters/istio/sandbox/istio.ts';
import type { PilotAgent } from '../../../adapters/istio/sandbox/pilot-agent.ts';
import { readIstioToken } from '../../support/istio-token.ts';
import { preciseNow, servePart } from './part.ts';

let istio: Istio;
let pilot: PilotAgent;

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
  /** Pushes a new leaf; answers when it was made and handed to the stream. */
  push() {
    pilot.rotate();
    return preciseNow();
  },
};

export type Ca = typeof methods;
servePart(methods);
