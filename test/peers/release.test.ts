import assert from 'node:assert/strict';
import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { REPOSITORY, VERSION } from '../../scripts/image/content.ts';
import { FILES } from '../../scripts/release/artifacts.ts';
import { filesBelow, ROOT } from '../../scripts/tree.ts';
import { peer } from './build.ts';
import { prepareCluster } from './parts/prepare.ts';
import { startKubeApiserver } from './servers/kube-apiserver.ts';
import { discard, output, scratchDir } from './servers/process.ts';

const CACHE = process.env.MESHCERT_CACHE ?? join(homedir(), '.cache', 'meshcert');

/** The files of a release are made once here, once in another directory, and judged by the programs that read them. */
describe('the files of a release', () => {
  let dir: string;
  let released: string;
  let env: Record<string, string>;

  before(async () => {
    dir = scratchDir('release');
    released = join(dir, 'released');
    const programs = [process.execPath, await peer('kubectl'), await peer('krew')].map((file) => dirname(file));
    env = { PATH: [...programs, process.env.PATH].join(':'), HOME: dir };
    await run('openssl', 'ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', 'release.key');
    const said = await release(ROOT, released, ['--sign-key', join(dir, 'release.key')], { MESHCERT_CACHE: CACHE });
    assert.match(said, new RegExp(`^${REPOSITORY}:${VERSION}@sha256:[0-9a-f]{64}$`, 'm'));
  });
  after(() => discard(dir));

  const run = (program: string, ...args: readonly string[]): Promise<string> =>
    output(program, args, { cwd: dir, env });

  const release = (root: string, target: string, args: readonly string[], more: Record<string, string>) =>
    output(process.execPath, ['--import', 'tsx', 'scripts/release.ts', '--dry-run', '--output', target, ...args], {
      cwd: root,
      env: { ...env, ...more },
    });

  const path = (file: string): string => join(released, file);

  it('are the same bytes when they are made again in another directory with a new bundle', async (t) => {
    const root = join(dir, 'elsewhere', 'tree');
    await mkdir(root, { recursive: true });
    for (const file of filesBelow(ROOT)) await cp(join(ROOT, file), join(root, file));
    await run('cp', '-a', join(ROOT, 'node_modules'), join(root, 'node_modules'));
    // What was downloaded for the image is reused; test/cluster/image.test.ts downloads it again.
    const cache = join(dir, 'cache');
    await mkdir(cache);
    await mkdir(join(CACHE, 'image'), { recursive: true });
    await symlink(join(CACHE, 'image'), join(cache, 'image'));
    await release(root, join(dir, 'again'), [], { MESHCERT_CACHE: cache });
    const sums = (directory: string) => readFile(join(directory, FILES.checksums), 'utf8');
    t.diagnostic(await sums(released));
    assert.equal(await sums(join(dir, 'again')), await sums(released));
  });

  it('have the checksums that sha256sum computes, signed by a key that OpenSSL verifies', async () => {
    const checked = await output('sha256sum', ['--check', '--strict', FILES.checksums], { cwd: released, env });
    const others = (await readdir(released)).filter((name) => !name.startsWith(FILES.checksums));
    assert.deepEqual(checked.trim().split('\n').sort(), others.map((name) => `${name}: OK`).sort());
    const verify = ['-verify', 'SHA256SUMS.pem', '-signature', 'SHA256SUMS.sig', FILES.checksums];
    assert.match(await output('openssl', ['dgst', '-sha256', ...verify], { cwd: released, env }), /Verified OK/);
  });

  it('contain a chart that Helm reads like the one that it packs itself', async () => {
    const helm = await peer('helm');
    const chart = path(FILES.chart);
    assert.match(await run(helm, 'lint', chart), /0 chart\(s\) failed/);
    await run(helm, 'package', join(ROOT, 'deploy/helm/meshcert'), '--destination', dir);
    const packed = join(dir, FILES.chart);
    for (const what of ['values', 'readme', 'crds']) {
      assert.equal(await run(helm, 'show', what, chart), await run(helm, 'show', what, packed), what);
    }
    const values = ['-f', join(ROOT, 'deploy/helm/examples/istio.yaml')];
    const rendered = (file: string) =>
      run(helm, 'template', 'meshcert', file, '--include-crds', '--kube-version=1.34.2', ...values);
    assert.equal(await rendered(chart), await rendered(packed));
    const metadata = parse(await run(helm, 'show', 'chart', chart));
    assert.equal(metadata.version, VERSION);
    const changes = parse(metadata.annotations['artifacthub.io/changes']);
    assert.ok(changes.length > 10 && changes.every((one: object) => 'kind' in one && 'description' in one));
    for (const name of ['images', 'crds', 'crdsExamples', 'links']) {
      assert.ok(Array.isArray(parse(metadata.annotations[`artifacthub.io/${name}`])), name);
    }
    await assert.rejects(
      run(helm, 'template', 'meshcert', chart, '--kube-version', '1.24.0'),
      /incompatible with Kubernetes/,
    );
  });

  it('contain a plug-in that krew validates and installs for kubectl', async () => {
    const validated = await run(
      'bash',
      '-c',
      `exec 2>&1; ${await peer('validate-krew-manifest')} -skip-install -manifest ${path(FILES.krew)}`,
    );
    assert.match(validated, /structural validation OK/);
    for (const os of ['linux', 'darwin']) {
      const root = join(dir, `krew-${os}`);
      const install = ['install', `--manifest=${path(FILES.krew)}`, `--archive=${path(FILES.plugin)}`];
      // krew compares the archive with the checksum of the manifest.
      await output(await peer('krew'), install, { cwd: dir, env: { ...env, KREW_ROOT: root, KREW_OS: os } });
      const plugin = { ...env, PATH: `${join(root, 'bin')}:${env.PATH}` };
      assert.equal(
        await output('kubectl', ['meshcert', '--version'], { cwd: dir, env: plugin }),
        `meshcert ${VERSION}\n`,
      );
    }
    const other = join(dir, 'other.tar.gz');
    await writeFile(other, 'another archive');
    await assert.rejects(
      output(await peer('krew'), ['install', `--manifest=${path(FILES.krew)}`, `--archive=${other}`], {
        cwd: dir,
        env: { ...env, KREW_ROOT: join(dir, 'krew-other') },
      }),
      /checksum/i,
    );
  });

  it('contain an image for both platforms, with binaries of each', async () => {
    const unpacked = join(dir, 'image');
    await mkdir(unpacked);
    await run('tar', '-xf', path(FILES.image), '-C', unpacked);
    const blob = async (digest: string) =>
      JSON.parse(await readFile(join(unpacked, 'blobs', digest.replace(':', '/')), 'utf8'));
    const { manifests } = JSON.parse(await readFile(join(unpacked, 'index.json'), 'utf8'));
    const index = await blob(manifests[0].digest);
    const machines: Record<string, RegExp> = { amd64: /X86-64/, arm64: /AArch64/ };
    assert.deepEqual(
      index.manifests.map(({ platform }: { platform: { architecture: string } }) => platform.architecture),
      Object.keys(machines),
    );
    for (const { platform, digest } of index.manifests) {
      const root = join(dir, platform.architecture);
      await mkdir(root);
      for (const layer of (await blob(digest)).layers) {
        await run('tar', '-xzf', join(unpacked, 'blobs', layer.digest.replace(':', '/')), '-C', root);
      }
      const binaries = filesBelow(root).filter((file) => /\.so[.\d]*$|usr\/bin\/node$/.test(file));
      assert.ok(binaries.length >= 7, binaries.join());
      for (const file of binaries) {
        assert.match(await run('readelf', '-h', join(root, file)), machines[platform.architecture] ?? /never/, file);
      }
      const bill = JSON.parse(
        await readFile(path(`meshcert-image-${VERSION}-${platform.architecture}.cdx.json`), 'utf8'),
      );
      assert.ok(bill.metadata.component.purl.includes(encodeURIComponent(manifests[0].digest)));
    }
    assert.ok((await readFile(path(FILES.notes), 'utf8')).includes(manifests[0].digest));
  });

  it('contain YAML that is what kustomize builds, and that a real API server accepts', async () => {
    const objects = (text: string) => parseAllDocuments(text).map((document) => document.toJS());
    const key = ({ kind, metadata }: { kind: string; metadata: { name: string } }) => `${kind}/${metadata.name}`;
    const sorted = (text: string) => objects(text).sort((a, b) => key(a).localeCompare(key(b)));
    const built = await run('kubectl', 'kustomize', join(ROOT, 'deploy/kustomize/overlays/deployment'));
    assert.deepEqual(sorted(await readFile(path(FILES.installation), 'utf8')), sorted(built));

    const server = await startKubeApiserver();
    try {
      await prepareCluster(server, { emissary: ['emissary-ingress'] });
      await server.kubectl(['apply', '--server-side', '-f', path(FILES.definitions)]);
      await server.kubectl([
        'wait',
        '--for=condition=Established',
        'crd/meshcertificates.meshcert.dev',
        '--timeout=30s',
      ]);
      const applied = await server.kubectl(['apply', '-f', path(FILES.installation)]);
      assert.match(applied, /meshcertificate.meshcert.dev\/istio created/);
      assert.match(applied, /deployment.apps\/meshcert created/);
    } finally {
      await server.stop();
    }
  });
});

describe('the workflows', () => {
  it('are accepted by actionlint, and name every action by its commit', async () => {
    const directory = join(ROOT, '.github/workflows');
    const files = (await readdir(directory)).map((name) => join(directory, name));
    assert.equal(files.length, 2);
    assert.equal(await output(await peer('actionlint'), ['-no-color', ...files], { cwd: ROOT }), '');
    for (const file of files) {
      for (const [line] of (await readFile(file, 'utf8')).matchAll(/^.*\buses: .*$/gm)) {
        assert.match(line, /uses: [\w-]+\/[\w-]+@[0-9a-f]{40} # v[\d.]+$/);
      }
    }
  });

  it('use the names of files that a release has', async () => {
    const text = await readFile(join(ROOT, '.github/workflows/release.yaml'), 'utf8');
    const named = [...text.matchAll(/dist\/release\/([\w$-]+(?:\.\w+)*\.?[\w$#{}.]*?\.(?:tgz|tar|md))/g)].map(
      ([, name]) => name,
    );
    const known = [FILES.image, FILES.chart, FILES.notes].map((name) => name.replace(VERSION, '$version'));
    for (const name of known) assert.ok(named.includes(name), `${name} in ${named.join()}`);
  });
});
