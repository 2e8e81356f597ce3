import { createHash } from 'node:crypto';
import { type BundledPackage, bundledPackages } from '../build.ts';
import { description, license, NODE, REPOSITORY, VERSION } from './content.ts';
import type { Architecture } from './oci.ts';
import type { DebianPackage } from './sources.ts';

/** A software bill of materials in CycloneDX 1.5. It has no time and no random number: equal inputs give equal bills. */
function bill(component: { readonly name: string } & Readonly<Record<string, string>>, components: readonly object[]) {
  const content = {
    $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      component: {
        'bom-ref': `meshcert@${VERSION}`,
        version: VERSION,
        description,
        licenses: [{ license: { id: license } }],
        ...component,
      },
    },
    components,
  };
  const serialNumber = `urn:uuid:${uuidOf(JSON.stringify(content))}`;
  return `${JSON.stringify({ ...content, serialNumber }, null, 2)}\n`;
}

/** Of the image: Node.js, Debian's libraries, and the npm packages that the bundle is made from. */
export async function billOfMaterials(image: {
  readonly architecture: Architecture;
  readonly digest: string;
  readonly packages: readonly DebianPackage[];
}): Promise<string> {
  const { architecture, digest, packages } = image;
  const component = {
    type: 'container',
    name: REPOSITORY,
    purl: `pkg:oci/meshcert@${encodeURIComponent(digest)}?repository_url=${REPOSITORY}&arch=${architecture}`,
  };
  const node = {
    'bom-ref': `node@${NODE.version}`,
    type: 'platform',
    name: 'node',
    version: NODE.version,
    purl: `pkg:generic/node@${NODE.version}`,
    cpe: `cpe:2.3:a:nodejs:node.js:${NODE.version}:*:*:*:lts:*:*:*`,
  };
  const libraries = packages.map(({ name, version }) => ({
    'bom-ref': `deb/${name}@${version}`,
    type: 'library',
    name,
    version,
    purl: `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=${architecture}`,
  }));
  return bill(component, [node, ...libraries, ...(await bundledPackages()).map(npmComponent)]);
}

/** Of the npm package: the packages that its bundles are made from. */
export async function billOfPackage(): Promise<string> {
  const component = { type: 'application', name: 'meshcert', purl: `pkg:npm/meshcert@${VERSION}` };
  return bill(component, (await bundledPackages({ demo: true })).map(npmComponent));
}

const npmComponent = ({ name, version }: BundledPackage) => ({
  'bom-ref': `npm/${name}@${version}`,
  type: 'library',
  name,
  version,
  purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
});

function uuidOf(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex');
  // RFC 9562: version 8, for an identifier that is derived from content.
  return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `a${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    '-',
  );
}
