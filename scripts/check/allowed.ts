import type { Allowed } from './structure.ts';

const SANDBOX_OF_MESH = 'the part of the sandbox that belongs to one mesh; biome.json has rules for it';

const SANDBOX_OF_MODULE =
  'the part of the sandbox that stands in for what that module talks to; nothing below it may be imported by the product';

export const ALLOWED: Allowed = {
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
