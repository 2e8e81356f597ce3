import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { VERSION } from './image/content.ts';
import { architecturesOf } from './image/oci.ts';
import { artifacts, FILES } from './release/artifacts.ts';
import { changelog, type Section, sectionOf } from './release/changelog.ts';
import { signatureOf } from './release/signature.ts';
import { capture } from './run.ts';
import { ROOT } from './tree.ts';

const USAGE = `usage: npm run release -- [--dry-run] [--arch amd64,arm64] [--output DIRECTORY] [--sign-key FILE]

Writes every file of a release into dist/release: the npm package, the image, the chart, the plug-in of kubectl with its
krew manifest, YAML for kubectl, bills of materials, notes and checksums. It publishes nothing.

  --dry-run         also from a commit that is not tagged, and with the section Unreleased of the changelog
  --arch LIST       the platforms of the image (default: amd64,arm64)
  --sign-key FILE   sign SHA256SUMS with this EC or RSA key in PEM
`;

const { values } = parseArgs({
  options: {
    'dry-run': { type: 'boolean', default: false },
    arch: { type: 'string', default: 'amd64,arm64' },
    output: { type: 'string', default: join(ROOT, 'dist', 'release') },
    'sign-key': { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (values.help) process.stdout.write(USAGE);
else
  await main().catch((error: Error) => {
    process.stderr.write(`release: ${error.message}\n`);
    process.exitCode = 1;
  });

async function main(): Promise<void> {
  const architectures = architecturesOf(values.arch);
  const section = await sectionOfRelease();
  if (!values['dry-run']) await requireTag();
  const { files, image } = await artifacts(architectures, section);
  const all = new Map(files);
  if (values['sign-key'] !== undefined) {
    const signed = files.get(FILES.checksums) ?? Buffer.alloc(0);
    const { bytes, publicKey } = await signatureOf(signed, values['sign-key']);
    all.set(`${FILES.checksums}.sig`, bytes).set(`${FILES.checksums}.pem`, Buffer.from(publicKey));
  }
  const directory = resolve(values.output);
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  for (const [name, content] of all) {
    await writeFile(join(directory, name), content);
    process.stdout.write(`${String(content.length).padStart(12)}  ${name}\n`);
  }
  process.stdout.write(`${image}\n${directory}\n`);
}

async function sectionOfRelease(): Promise<Section> {
  const text = await changelog();
  const section = sectionOf(text, VERSION) ?? (values['dry-run'] ? sectionOf(text, 'Unreleased') : undefined);
  if (section) return section;
  throw new Error(`CHANGELOG.md has no section "## ${VERSION}": rename "## Unreleased", and add a new one above it`);
}

/** The version is that of package.json; the tag must be the same, and the commit must be all that there is. */
async function requireTag(): Promise<void> {
  const tag = `v${VERSION}`;
  const tags = await capture('git', ['tag', '--points-at', 'HEAD']);
  if (!tags.output.split('\n').includes(tag)) {
    throw new Error(
      `the commit has no tag ${tag}, the version in package.json: see docs/contributing/releasing.md, or add --dry-run`,
    );
  }
  const { output } = await capture('git', ['status', '--porcelain']);
  if (output !== '')
    throw new Error(`the work tree has changes that are not in ${tag}: commit or remove them\n${output}`);
}
