import { createHash } from 'node:crypto';
import { access, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { REPOSITORY, VERSION } from '../../scripts/image/content.ts';
import { image } from '../../scripts/image/image.ts';
import { layer, ociArchive, type PlatformImage, type RunConfig } from '../../scripts/image/oci.ts';
import { base, CACHE } from '../../scripts/image/sources.ts';
import type { Entry } from '../../scripts/image/tar.ts';
import { type PeerName, peer } from '../peers/build.ts';
import { PAUSE_IMAGE } from './node/kubelet.ts';

const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';

interface Recipe {
  readonly name: string;
  /** Its programs, each at `/NAME`; the first is the entry point. */
  readonly programs: readonly PeerName[];
  /** The C libraries too, for what is not a static Go program. */
  readonly libraries?: true;
  readonly config?: RunConfig;
}

/** Images of peers, for tests only. */
const RECIPES = {
  pause: { name: PAUSE_IMAGE, programs: ['pause'] },
  coredns: { name: 'meshcert.dev/coredns:test', programs: ['coredns'] },
  istiod: { name: 'meshcert.dev/istiod:test', programs: ['pilot-discovery'] },
  envoy: { name: 'meshcert.dev/envoy:test', programs: ['envoy'], libraries: true },
  /** Istio's proxy: the agent, and the Envoy that it starts. */
  proxy: { name: 'meshcert.dev/proxy:test', programs: ['pilot-agent', 'envoy'], libraries: true },
  consul: { name: 'meshcert.dev/consul:test', programs: ['consul'] },
} as const satisfies Record<string, Recipe>;

export type ImageName = keyof typeof RECIPES | 'meshcert';

/** What a pod's `image` is. */
export function imageName(name: ImageName): string {
  return name === 'meshcert' ? `${REPOSITORY}:${VERSION}` : RECIPES[name].name;
}

/** The OCI archive of an image, made first where the cache lacks it. */
export async function imageFile(name: ImageName): Promise<string> {
  const { key, make } = name === 'meshcert' ? await ours() : await ofPeer(RECIPES[name]);
  const file = join(CACHE, 'archives', `${name}-${createHash('sha256').update(key).digest('hex').slice(0, 16)}.tar`);
  const exists = await access(file).then(
    () => true,
    () => false,
  );
  if (exists) return file;
  await mkdir(dirname(file), { recursive: true });
  const unfinished = `${file}.${process.pid}`;
  await writeFile(unfinished, ociArchive(imageName(name), [await make()]).tar);
  await rename(unfinished, file);
  return file;
}

interface Plan {
  readonly key: string;
  make(): Promise<PlatformImage>;
}

async function ours(): Promise<Plan> {
  const bundle = await builtBundle();
  const sources = ['content', 'image', 'oci', 'sources', 'tar'].map((name) => `../../scripts/image/${name}.ts`);
  const texts = await Promise.all(sources.map((path) => readFile(new URL(path, import.meta.url), 'utf8')));
  return { key: [await readFile(bundle, 'utf8'), ...texts].join('\0'), make: () => image(architecture, bundle) };
}

async function ofPeer({ name, programs, libraries, config }: Recipe): Promise<Plan> {
  const paths = await Promise.all(programs.map(async (program) => [program, await peer(program)] as const));
  const make = async (): Promise<PlatformImage> => {
    const files: Entry[] = await Promise.all(
      paths.map(async ([path, file]) => ({ path, mode: 0o755, content: await readFile(file) })),
    );
    if (libraries) {
      const shared = (await base(architecture, CACHE)).files.filter(({ path }) => path.includes('.so'));
      files.push(...shared);
    }
    const layers = [layer(files, { compressed: false })];
    return { architecture, layers, config: { Entrypoint: [`/${programs[0]}`], ...config } };
  };
  // A peer's path names what it was built from.
  return { key: JSON.stringify([name, paths, libraries, config]), make };
}
