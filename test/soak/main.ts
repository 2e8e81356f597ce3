import { PLACES, type Place } from '../peers/parts/gateway-traffic.ts';
import { emissary } from './emissary.ts';
import { gatewayApi } from './gateway-api.ts';
import { tokens } from './tokens.ts';

const USAGE = `usage: npm run soak                         Emissary, three meshes, 40 minutes
       npm run soak -- gateway-api [PLACE…]   Envoy Gateway, 15 minutes; PLACE: ${PLACES.join(', ')}
       npm run soak -- tokens                 a release on a node until its first tokens end, 12 minutes

MESHCERT_TRAFFIC_MS is the time of the first two in milliseconds.
`;

const [gateway = 'emissary', ...rest] = process.argv.slice(2);
const places = PLACES.filter((place) => rest.length === 0 || rest.includes(place));
const isKnown = rest.every((place) => PLACES.includes(place as Place));
const given = process.env.MESHCERT_TRAFFIC_MS;
const durationMs = given === undefined ? undefined : Number(given);

if (gateway === 'emissary' && rest.length === 0) {
  process.exitCode = (await emissary(durationMs)) ? 0 : 1;
} else if (gateway === 'gateway-api' && isKnown) {
  process.exitCode = (await gatewayApi(places, durationMs)) ? 0 : 1;
} else if (gateway === 'tokens' && rest.length === 0) {
  process.exitCode = (await tokens()) ? 0 : 1;
} else {
  process.stderr.write(USAGE);
  process.exitCode = 2;
}
