import type { Allowed } from './structure.ts';

const SANDBOX_OF_MESH = 'the part of the sandbox that belongs to one mesh; biome.json has rules for it';

const SANDBOX_OF_MODULE =
  'the part of the sandbox that stands in for what that module talks to; nothing below it may be imported by the product';

const MEMBERSHIP = 'each mesh says in this file which pods are in it';

const COMMAND = 'each command is declared in one file';

export const ALLOWED: Allowed = {
  smallFiles: {
    'adapters/consul/cluster/pods.ts': MEMBERSHIP,
    'adapters/linkerd/cluster/pods.ts': MEMBERSHIP,
    'src/cli/commands/completion.ts': COMMAND,
    'src/cli/commands/offboard.ts': COMMAND,
    'src/cli/commands/index.ts': 'the list of commands',
    'src/cli/commands/schema.ts': COMMAND,
    'src/cli/run/schema.ts': 'loaded on demand by its command',
  },
  typeNames: {},
  moduleNames: {
    'adapters/consul/sandbox': SANDBOX_OF_MESH,
    'adapters/file/sandbox': SANDBOX_OF_MESH,
    'adapters/istio/sandbox': SANDBOX_OF_MESH,
    'adapters/linkerd/sandbox': SANDBOX_OF_MESH,
    'adapters/spiffe/sandbox': SANDBOX_OF_MESH,
    'src/sandbox/gateway': SANDBOX_OF_MODULE,
    'src/sandbox/kube': SANDBOX_OF_MODULE,
  },
};
