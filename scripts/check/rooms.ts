import { type Module, modulesBelow } from './structure.ts';

interface Room {
  /** Rooms of `src` that it may import besides itself, `src/async` and `src/objects`. */
  readonly imports: readonly string[];
  /** No I/O: values in, values out. */
  readonly pure?: true;
}

/** The table of CONTRIBUTING.md. */
export const ROOMS: Readonly<Record<string, Room>> = {
  async: { imports: [], pure: true },
  objects: { imports: [], pure: true },
  pki: { imports: [], pure: true },
  mesh: { imports: ['pki'], pure: true },
  core: { imports: ['mesh', 'pki'], pure: true },
  config: { imports: ['core', 'mesh', 'pki'] },
  gateway: { imports: ['config', 'core', 'mesh', 'pki'], pure: true },
  kube: { imports: ['gateway', 'core', 'mesh', 'pki'] },
  grpc: { imports: ['mesh', 'pki'] },
  preflight: { imports: ['core', 'mesh', 'pki'] },
  probe: { imports: ['config', 'mesh', 'pki'] },
  telemetry: { imports: ['core', 'mesh'] },
  http: { imports: ['telemetry', 'config', 'core', 'mesh'] },
  doctor: { imports: ['kube', 'gateway', 'config', 'core', 'mesh', 'pki'] },
  onboard: { imports: ['kube', 'gateway', 'config', 'core', 'mesh', 'pki', 'probe'] },
  agent: {
    imports: ['kube', 'grpc', 'gateway', 'config', 'core', 'mesh', 'pki', 'telemetry', 'http', 'doctor', 'probe'],
  },
  cli: {
    imports: [
      ...['agent', 'onboard', 'doctor', 'preflight', 'probe', 'http', 'telemetry', 'kube', 'grpc', 'gateway'],
      ...['config', 'core', 'mesh', 'pki'],
    ],
  },
};

const ADAPTER: Room = { imports: ['grpc', 'mesh', 'pki'] };
/** What the sandbox judges in tests; only the demo runs it. */
const NOT_IN_SANDBOX = ['agent', 'preflight', 'probe', 'cli'];

/** The only users of these packages. */
const CLIENTS: Readonly<Record<string, readonly string[]>> = {
  '@kubernetes/': ['src/kube/'],
  '@grpc/': ['src/grpc/', 'sandbox/grpc/'],
};

const IO = /^node:(fs|tls|https?|http2|dns|child_process|timers)(\/|$)/;

/** `file imports what it may not`, for each import of src, adapters and sandbox that breaks a rule. */
export const roomFindings = (root: string): string[] =>
  modulesBelow(root, 'src', 'adapters', 'sandbox').flatMap(({ file, imports, lazyImports, packages }) => [
    ...[...imports, ...lazyImports].filter((to) => !mayImport(file, to)).map((to) => `${file} may not import ${to}`),
    ...packages.flatMap((name) => refusedPackage(file, name)),
  ]);

const roomOf = (path: string): string | undefined => /^src\/(\w+)\//.exec(path)?.[1];

function mayImport(file: string, to: string): boolean {
  const [from, target] = [roomOf(file), roomOf(to)];
  if (to.startsWith('sandbox/'))
    return file.startsWith('sandbox/') || (from === 'cli' && to.startsWith('sandbox/demo/'));
  if (to.startsWith('adapters/')) {
    if (to.split('/').length === 2) return from === undefined || ['agent', 'cli'].includes(from);
    return !file.startsWith('src/');
  }
  if (target === undefined) return true;
  if (file.startsWith('sandbox/demo/')) return target !== 'cli';
  if (file.startsWith('sandbox/')) return !NOT_IN_SANDBOX.includes(target);
  if (from === target) return true;
  if (target === 'async' || target === 'objects') return from !== 'pki' && from !== 'async';
  // src/gateways.ts and the lists in `adapters` belong to no room.
  const room = file.startsWith('adapters/') ? ADAPTER : from === undefined ? undefined : ROOMS[from];
  return room === undefined || room.imports.includes(target);
}

function refusedPackage(file: string, name: Module['packages'][number]): string[] {
  const client = Object.keys(CLIENTS).find((start) => name.startsWith(start));
  if (client !== undefined && !CLIENTS[client]?.some((folder) => file.startsWith(folder))) {
    return [`${file} may not import ${name}; only ${CLIENTS[client]?.join(' and ')} may`];
  }
  return IO.test(name) && ROOMS[roomOf(file) ?? '']?.pure ? [`${file} may not import ${name}; its room is pure`] : [];
}
