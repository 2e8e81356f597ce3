import type { Adapter } from '../src/mesh/adapter.ts';
import { consul } from './consul/adapter.ts';
import { file } from './file/adapter.ts';
import { istio } from './istio/adapter.ts';
import { linkerd } from './linkerd/adapter.ts';
import { spiffe } from './spiffe/adapter.ts';

/** All meshes. Another one is a folder and a line here. */
export const adapters: readonly Adapter[] = [
  istio as Adapter,
  linkerd as Adapter,
  consul as Adapter,
  spiffe as Adapter,
  file as Adapter,
];
