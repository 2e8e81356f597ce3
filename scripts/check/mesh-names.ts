import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { trackedBelow } from '../tree.ts';

const MESH = /istio|linkerd|consul|\bspire\b/i;

/**
 * Names that a gateway, not the mesh, gave to a feature of its own; reviewed. SPIFFE IDs are a standard, not a mesh.
 */
const REVIEWED: readonly { readonly term: RegExp; readonly why: string }[] = [
  { term: /istio-certs/g, why: 'the Secret that Emissary makes up from the files of its sidecar' },
  { term: /AMBASSADOR_ISTIO_SECRET_DIR|istioSecretDir/g, why: "Emissary's setting for those files" },
  { term: /istio\.io\/key-and-cert/g, why: 'a type of Secrets that Emissary reads' },
  { term: /Istio files of its sidecar/g, why: 'the title of MC1401, about that setting' },
  { term: /\bConsulResolver\b|\bconsul-?resolvers\b|\bconsul-endpoint\b/gi, why: "Emissary's kind of resolver" },
  { term: /resolver === 'consul'|'consul'(?=[\],;)]| \|)/g, why: 'that kind of resolver, in code' },
  { term: /consul_connect_integration|old Consul connector|--consul-connector/g, why: "Ambassador's connector" },
  { term: /docs\/migrate-consul-connector\.md/g, why: 'the page about it' },
];

/** `file:line: the name` of each mesh name in product code outside `adapters`. */
export function meshNames(root: string): string[] {
  return trackedBelow(root, 'src')
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts') && !file.includes('/gen/'))
    .flatMap((file) => {
      const lines = readFileSync(join(root, file), 'utf8').split('\n');
      return lines.flatMap((line, at) => {
        const [name] = MESH.exec(withoutReviewed(line)) ?? [];
        return name === undefined ? [] : [`${file}:${at + 1}: names ${name}; a mesh is named in its adapter alone`];
      });
    });
}

const withoutReviewed = (line: string): string => REVIEWED.reduce((text, { term }) => text.replaceAll(term, ''), line);
