import { createHash } from 'node:crypto';
import { packagesOfProduct } from '../build.ts';
import { description, license, NODE, REPOSITORY, VERSION } from './content.ts';
import type { Architecture } from './oci.ts';
import type { DebianPackage } from './sources.ts';

/**
 * A software bill of materials of the image, in CycloneDX 1.5: Node.js, Debian's libraries, and the npm packages that the
 * bundle is made from. It has no time and no random number: equal images have equal bills.
 */
export async function billOfMaterials(image: {
  readonly architecture: Architecture;
  readonly digest: string;
  readonly packages: readonly DebianPackage[];
}): Promise<string> {
  const components = [
    {
      'bom-ref': `node@${NODE.version}`,
      type: 'platform',
      name: 'node',
      version: NODE.version,
      purl: `pkg:generic/node@${NODE.version}`,
      cpe: `cpe:2.3:a:nodejs:node.js:${NODE.version}:*:*:*:lts:*:*:*`,
    },
    ...image.packages.map(({ name, version }) => ({
      'bom-ref': `deb/${name}@${version}`,
      type: 'library',
      name,
      version,
      purl: `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=${image.architecture}`,
    })),
    ...(await packagesOfProduct()).map(({ name, version }) => ({
      'bom-ref': `npm/${name}@${version}`,
      type: 'library',
      name,
      version,
      purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
    })),
  ];
  const bill = {
    $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      component: {
        'bom-ref': `meshcert@${VERSION}`,
        type: 'container',
        name: REPOSITORY,
        version: VERSION,
        description,
        licenses: [{ license: { id: license } }],
        purl: `pkg:oci/meshcert@${encodeURIComponent(image.digest)}?repository_url=${REPOSITORY}&arch=${image.architecture}`,
      },
    },
    components,
  };
  return `${JSON.stringify({ ...bill, serialNumber: `urn:uuid:${uuidOf(JSON.stringify(bill))}` }, null, 2)}\n`;
}

function uuidOf(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex');
  // RFC 9562: version 8, for an identifier that is derived from content.
  return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `a${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    '-',
  );
}
