import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { ROOT } from '../tree.ts';

interface Kustomization {
  readonly namespace?: string;
  readonly resources: readonly string[];
}

interface Manifest {
  readonly kind: string;
  readonly metadata: { namespace?: string };
}

/** The CustomResourceDefinition. It is a file of its own, since a MeshCertificate is refused until it is established. */
export const definitions = (): Promise<string> => readFile(join(ROOT, 'deploy/crd/meshcertificate.yaml'), 'utf8');

/** What `kubectl apply -k deploy/kustomize/overlays/deployment` applies, as one file. */
export async function installation(): Promise<string> {
  const manifests = await resourcesOf('deploy/kustomize/overlays/deployment/kustomization.yaml');
  const notes = [
    'Two agents and a MeshCertificate for a gateway with the ServiceAccount emissary-ingress in namespace emissary, and Istio.',
    'Apply crds.yaml first.',
  ];
  const objects = manifests.map((manifest) => stringify(manifest, { lineWidth: 0, aliasDuplicateObjects: false }));
  return notes.map((line) => `# ${line}\n`).join('') + objects.join('---\n');
}

/** Of these kustomizations: lists of files and directories, and a namespace for all; nothing else that kustomize can. */
async function resourcesOf(file: string): Promise<Manifest[]> {
  const { namespace, resources } = parse(await readFile(join(ROOT, file), 'utf8')) as Kustomization;
  const found: Manifest[] = [];
  for (const resource of resources) {
    const path = join(dirname(file), resource);
    if (!path.endsWith('.yaml')) {
      found.push(...(await resourcesOf(join(path, 'kustomization.yaml'))));
      continue;
    }
    for (const document of parseAllDocuments(await readFile(join(ROOT, path), 'utf8'))) {
      const manifest = document.toJS() as Manifest;
      if (namespace !== undefined) manifest.metadata.namespace = namespace;
      found.push(manifest);
    }
  }
  return found;
}
