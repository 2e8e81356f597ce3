import { createHash } from 'node:crypto';
import { access, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { REPOSITORY, VERSION } from '../../scripts/image/content.ts';
import { image } from '../../scripts/image/image.ts';
import {
  type Architecture,
  layer,
  nativeArchitecture,
  ociArchive,
  type PlatformImage,
  type RunConfig,
} from '../../scripts/image/oci.ts';
import { CACHE } from '../../scripts/image/sources.ts';
import type { Entry } from '../../scripts/image/tar.ts';
import { type PeerName, peer } from '../peers/build.ts';
import { output } from '../peers/servers/process.ts';
import { PAUSE_IMAGE } from './node/kubelet.ts';
import { previousRelease } from './previous.ts';

/** The code that makes an image, in addition to its inputs. */
const SOURCES = [
  'images.ts',
  ...['content', 'image', 'oci', 'sources', 'tar'].map((n) => `../../scripts/image/${n}.ts`),
  '../../scripts/licenses.ts',
];

interface Recipe {
  readonly name: string;
  /** Its programs, each at `/NAME`; the first is the entry point. */
  readonly programs: readonly PeerName[];
  /** The C libraries too, for programs that are not static Go programs. */
  readonly libraries?: true;
  /** A directory `/tmp` that every user may write to. */
  readonly tmp?: true;
  readonly config?: RunConfig;
}

/** Images of peers, for tests only. */
const RECIPES = {
  pause: { name: PAUSE_IMAGE, programs: ['pause'] },
  coredns: { name: 'meshcert.dev/coredns:test', programs: ['coredns'] },
  istiod: { name: 'meshcert.dev/istiod:test', programs: ['pilot-discovery'] },
  /** Only Envoy, under the name of the gateway in deploy/kustomize/overlays/sidecar. Envoy Gateway runs it too. */
  gateway: {
    name: 'docker.io/emissaryingress/emissary:3.9.1',
    programs: ['envoy'],
    libraries: true,
    config: { Env: ['PATH=/'] },
  },
  /** It also drains the Envoys that it runs, and tells by a file that it has. */
  'envoy-gateway': {
    name: 'docker.io/envoyproxy/gateway:v1.9.1',
    programs: ['envoy-gateway'],
    tmp: true,
    config: { Env: ['PATH=/'] },
  },
  /** Istio's proxy: the agent, and the Envoy that it starts. */
  proxy: { name: 'meshcert.dev/proxy:test', programs: ['pilot-agent', 'envoy'], libraries: true },
  consul: { name: 'meshcert.dev/consul:test', programs: ['consul'] },
} as const satisfies Record<string, Recipe>;

/**
 * `previous` is meshcert of the release before, on the Node.js of today's image; `foreign` has the programs of another
 * architecture under the label of this machine's; containerd refuses an image with an honest label when it pulls it.
 */
export type ImageName = keyof typeof RECIPES | 'meshcert' | 'previous' | 'foreign';

/** The `image` of a pod. */
export function imageName(name: ImageName): string {
  if (name === 'meshcert') return `${REPOSITORY}:${VERSION}`;
  return name === 'previous' || name === 'foreign' ? `${REPOSITORY}:${name}` : RECIPES[name].name;
}

/** The OCI archive of an image, made first if the cache lacks it. */
export async function imageFile(name: ImageName): Promise<string> {
  const { key, make } = await planOf(name);
  const hash = createHash('sha256').update(key);
  for (const source of SOURCES) hash.update(`\0${await readFile(new URL(source, import.meta.url), 'utf8')}`);
  const file = join(CACHE, 'archives', `${name}-${hash.digest('hex').slice(0, 16)}.tar`);
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

async function planOf(name: ImageName): Promise<Plan> {
  if (name === 'meshcert') return ofBundle(await builtBundle());
  if (name === 'foreign') return ofBundle(await builtBundle(), nativeArchitecture === 'arm64' ? 'amd64' : 'arm64');
  return name === 'previous' ? ofBundle((await previousRelease()).bundle) : ofPeer(RECIPES[name]);
}

async function ofBundle(bundle: string, of: Architecture = nativeArchitecture): Promise<Plan> {
  return {
    key: await readFile(bundle, 'utf8'),
    make: async () => ({ ...(await image(of, bundle)), architecture: nativeArchitecture }),
  };
}

async function ofPeer({ name, programs, libraries, tmp, config }: Recipe): Promise<Plan> {
  const paths = await Promise.all(programs.map(async (program) => [program, await peer(program)] as const));
  const make = async (): Promise<PlatformImage> => {
    const files: Entry[] = await Promise.all(
      paths.map(async ([path, file]) => ({ path, mode: 0o755, content: await readFile(file) })),
    );
    if (libraries) for (const [, file] of paths) files.push(...(await librariesOf(file)));
    if (tmp) files.push({ path: 'tmp', mode: 0o1777 });
    const layers = [layer(files, { compressed: false })];
    return { architecture: nativeArchitecture, layers, config: { Entrypoint: [`/${programs[0]}`], ...config } };
  };
  // A peer's path names what it was built from.
  return { key: JSON.stringify([name, paths, libraries, tmp, config]), make };
}

/** This machine's C libraries that a program needs, under their own paths. */
async function librariesOf(program: string): Promise<Entry[]> {
  const said = await output('ldd', [program]).catch(() => '');
  const paths = [...said.matchAll(/(?:=> |^\s*)(\/\S+) \(/gm)].map(([, path = '']) => path);
  return Promise.all(paths.map(async (path) => ({ path: path.slice(1), mode: 0o755, content: await readFile(path) })));
}
