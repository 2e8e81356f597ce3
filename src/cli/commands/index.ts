import type { AnyCommand } from '../declare/command.ts';
import { agent } from './agent.ts';
import { completion } from './completion.ts';
import { demo } from './demo.ts';
import { doctor } from './doctor.ts';
import { inspect } from './inspect.ts';
import { offboard } from './offboard.ts';
import { onboard } from './onboard.ts';
import { probe } from './probe.ts';
import { render } from './render.ts';
import { renew } from './renew.ts';
import { schema } from './schema.ts';
import { status } from './status.ts';

/** In the order of the overview. */
export const COMMANDS: readonly AnyCommand[] = [
  agent,
  demo,
  onboard,
  offboard,
  status,
  inspect,
  renew,
  doctor,
  probe,
  render,
  schema,
  completion,
];
