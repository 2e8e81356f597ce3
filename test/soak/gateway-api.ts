import { runGatewayRotations } from '../peers/parts/gateway-rotations.ts';
import type { Place } from '../peers/parts/gateway-traffic.ts';

const FIFTEEN_MINUTES = 900_000;
/** A machine that builds meanwhile stalls for longer than the half of a minute that a leaf lives in the short runs. */
const LEAF_MS = 60_000;
const ROOTS = { stepMs: 32_000, everyMs: 100_000 };
/** Through all Gateways together, as in the runs with Emissary. */
const PER_SECOND = 50;

/** Envoy Gateway with the certificate in each of the places; true: nothing failed, and nothing was sent in plaintext. */
export async function gatewayApi(places: readonly Place[], durationMs = FIFTEEN_MINUTES): Promise<boolean> {
  const seen = await runGatewayRotations({
    ...{ durationMs, places, perSecond: PER_SECOND / places.length },
    ...{ leafMs: LEAF_MS, rootRotation: ROOTS },
  });
  console.log(seen.line);
  const { refusals } = seen;
  const problems = seen.sites.flatMap(({ failures, violations }) => [...failures, ...violations]);
  for (const problem of [...problems, ...refusals]) console.error(problem);
  const lost = seen.sites.reduce((all, { failed, plaintext, refused }) => all + failed + plaintext + refused, 0);
  return lost === 0 && problems.length === 0 && refusals.length === 0;
}
