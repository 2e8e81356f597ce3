import type { StartMesh } from '../src/sandbox/cluster/mesh.ts';

/** A sandbox of each mesh, for demo and tests; loaded when it is started. Never imported by an adapter. */
export const sandboxes = {
  istio: async (setup) => (await import('./istio/sandbox/mesh.ts')).istioMesh(setup),
  linkerd: async (setup) => (await import('./linkerd/sandbox/mesh.ts')).linkerdMesh(setup),
  consul: async (setup) => (await import('./consul/sandbox/mesh.ts')).consulMesh(setup),
  spiffe: async (setup) => (await import('./spiffe/sandbox/mesh.ts')).spiffeMesh(setup),
  file: async (setup) => (await import('./file/sandbox/mesh.ts')).fileMesh(setup),
} as const satisfies Readonly<Record<string, StartMesh>>;

export type MeshName = keyof typeof sandboxes;
export const MESH_NAMES = Object.keys(sandboxes) as MeshName[];
