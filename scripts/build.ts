import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BuildOptions, build, type Plugin } from 'esbuild';
import { ROOT } from './tree.ts';

const PRODUCT = 'src/cli/main.ts';
const DEMO = 'sandbox/demo/demo.ts';

/**
 * Some dependencies are CommonJS and call `require` for Node's own modules. The first line, for the shell, comes from
 * main.ts.
 */
const banner = `import { createRequire as __createRequire } from 'node:module';
import { fileURLToPath as __fileURLToPath } from 'node:url';
import { dirname as __pathDirname } from 'node:path';
const require = __createRequire(import.meta.url);
const __filename = __fileURLToPath(import.meta.url);
const __dirname = __pathDirname(__filename);`;

/**
 * src/ uses only KubeConfig of @kubernetes/client-node, by a dynamic import, for which esbuild would keep 14 MB of API
 * classes; and KubeConfig itself needs two small modules of the package's index.
 */
export const kubeConfigOnly: Plugin = {
  name: 'kube-config-only',
  setup({ onResolve, onLoad }) {
    const dist = join(ROOT, 'node_modules/@kubernetes/client-node/dist');
    const ours = ['src', 'sandbox'].map((folder) => join(ROOT, folder) + sep);
    onResolve({ filter: /^@kubernetes\/client-node$/ }, ({ importer }) =>
      ours.some((folder) => importer.startsWith(folder)) ? { path: join(dist, 'config.js') } : undefined,
    );
    onLoad({ filter: /client-node\/dist\/gen\/index\.js$/ }, () => ({
      contents: `export * from './configuration.js'; export * from './servers.js';`,
    }));
  },
};

/** Unused parts of dependencies: 23,000 ranges of international domain names, messages in 50 languages. */
const withoutTables: Plugin = {
  name: 'without-tables',
  setup({ onLoad }) {
    onLoad({ filter: /whatwg-url\/lib\/public-api\.js$/ }, () => ({
      contents: 'module.exports = { URL, URLSearchParams };',
    }));
    onLoad({ filter: /zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: `export { default as en } from './en.js';`,
    }));
  },
};

/**
 * client-node makes an agent for the kubeconfig's proxy. src/kube/transport/proxy.ts connects in its place; loading the
 * packages takes 10 to 20 ms of a start.
 */
const withoutProxyAgents: Plugin = {
  name: 'without-proxy-agents',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^(hpagent|socks-proxy-agent)$/ }, ({ path }) => ({ path, namespace: 'unused-agents' }));
    onLoad({ filter: /.*/, namespace: 'unused-agents' }, () => ({
      contents: 'export class HttpProxyAgent {} export class HttpsProxyAgent {} export class SocksProxyAgent {}',
    }));
  },
};

/**
 * Importing `node:http` evaluates all that it exports. From Node 22 on, this includes `WebSocket`, which loads Node's
 * implementation of fetch: 40 ms of CPU at each start. `require` evaluates only what is used.
 */
const httpByRequire: Plugin = {
  name: 'http-by-require',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^(node:)?http$/ }, ({ kind }) =>
      kind === 'import-statement' ? { path: 'node:http', namespace: 'by-require' } : undefined,
    );
    onLoad({ filter: /.*/, namespace: 'by-require' }, ({ path }) => ({
      contents: `module.exports = require(${JSON.stringify(path)});`,
    }));
  },
};

/** The demo and the sandbox are not part of the product; `meshcert demo` loads them from the file beside it. */
const withoutDemo: Plugin = {
  name: 'without-demo',
  setup({ onResolve }) {
    onResolve({ filter: /\/sandbox\/demo\/demo\.ts$/ }, ({ kind }) =>
      kind === 'dynamic-import' ? { path: './demo.js', external: true } : undefined,
    );
  },
};

/**
 * Writes `meshcert.js`, the product, and `demo.js` into the directory, and returns the path of the first. One file with
 * everything in it takes a third of the start-up time and half of the memory of a tree of packages.
 */
export async function bundle(directory = join(ROOT, 'dist')): Promise<string> {
  await mkdir(directory, { recursive: true });
  await bundleOne(DEMO, join(directory, 'demo.js'), []);
  const product = join(directory, 'meshcert.js');
  await bundleOne(PRODUCT, product, [withoutDemo]);
  await chmod(product, 0o755);
  return product;
}

export interface BundledPackage {
  readonly name: string;
  readonly version: string;
  /** Below `node_modules`. */
  readonly directory: string;
}

/** The npm packages that parts of the product are from, and those of the demo if it is included, sorted by name. */
export async function bundledPackages({ demo = false } = {}): Promise<readonly BundledPackage[]> {
  const directories = new Set<string>();
  for (const entry of demo ? [PRODUCT, DEMO] : [PRODUCT]) {
    const options = await optionsOf(entry, join(ROOT, 'dist', 'meshcert.js'), entry === PRODUCT ? [withoutDemo] : []);
    const { metafile } = await build({ ...options, metafile: true });
    for (const { inputs } of Object.values(metafile.outputs)) {
      for (const [file, { bytesInOutput }] of Object.entries(inputs)) {
        const [, directory] = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file) ?? [];
        if (directory !== undefined && bytesInOutput > 0) directories.add(directory);
      }
    }
  }
  return await Promise.all([...directories].sort().map((directory) => readPackage(join(ROOT, directory))));
}

async function readPackage(directory: string): Promise<BundledPackage> {
  const { name, version } = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8'));
  return { name, version, directory };
}

async function bundleOne(entry: string, outfile: string, plugins: Plugin[]): Promise<void> {
  const { outputFiles } = await build(await optionsOf(entry, outfile, plugins));
  for (const { path, text } of outputFiles) await writeFile(path, path === outfile ? inAscii(text) : text);
}

async function optionsOf(entry: string, outfile: string, plugins: readonly Plugin[]) {
  const { version } = await readPackage(ROOT);
  return {
    absWorkingDir: ROOT,
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    // Of a package that has both, the ES modules, of which unused parts are left out: a fifth of the bundle.
    mainFields: ['module', 'main'],
    target: 'node20.18',
    format: 'esm',
    sourcemap: 'linked',
    sourcesContent: false,
    legalComments: 'eof',
    banner: { js: banner },
    // Names stay, for stack traces. V8 holds the text for as long as the process runs.
    minifyWhitespace: true,
    minifySyntax: true,
    write: false,
    plugins: [...plugins, kubeConfigOnly, withoutTables, withoutProxyAgents, httpByRequire],
    define: { MESHCERT_VERSION: JSON.stringify(version) },
    logLevel: 'warning',
  } satisfies BuildOptions;
}

/** With a single character outside Latin-1, V8 holds the text as UTF-16: twice the size. */
function inAscii(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII is meant
  return text.replace(/[^\x00-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(`${await bundle()}\n`);
