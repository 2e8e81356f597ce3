import { sandboxConsul } from './consul-sandbox.ts';
import { consulSuite } from './consul-suite.ts';

consulSuite(sandboxConsul);
