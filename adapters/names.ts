/** The meshes of `adapters`, in its order, for help and completion, which load no adapter. */
export const MESH_NAMES = ['istio', 'linkerd', 'consul', 'spiffe', 'file'] as const;

export type MeshName = (typeof MESH_NAMES)[number];
