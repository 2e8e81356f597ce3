import type { MeshName } from '../adapters/names.ts';
import type { StartMesh } from './cluster/mesh.ts';

/** A sandbox of each mesh, for demo and tests; loaded when it is started. */
export const sandboxes: Readonly<Record<MeshName, StartMesh>> = {
  istio: async (setup) => (await import('./istio/mesh.ts')).istioMesh(setup),
  linkerd: async (setup) => (await import('./linkerd/mesh.ts')).linkerdMesh(setup),
  consul: async (setup) => (await import('./consul/mesh.ts')).consulMesh(setup),
  spiffe: async (setup) => (await import('./spiffe/mesh.ts')).spiffeMesh(setup),
  file: async (setup) => (await import('./file/mesh.ts')).fileMesh(setup),
};
