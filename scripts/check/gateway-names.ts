import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow } from '../tree.ts';

const GATEWAY = /emissary|ambassador|tls_?context|mapping/i;
const FOLDER = 'src/gateway/emissary/';

/** Names that are public and stay, or that mean something else; reviewed. */
const REVIEWED: readonly { readonly term: RegExp; readonly why: string }[] = [
  { term: /\bmappings\b/g, why: 'the field `mappings` of spec and status' },
  { term: /policyMappings|policy mappings/g, why: 'an extension of X.509' },
  { term: /--(ambassador-id|mapping)\b|\bambassadorId\b/g, why: 'flags of the command line' },
];

/** Files that may name a gateway, by how their path begins, and why. */
export const ALLOWED_FILES: Readonly<Record<string, string>> = {};

/** `file:line: the name` of each gateway that product code outside its folder names. */
export function gatewayNames(root: string, allowed: Readonly<Record<string, string>> = ALLOWED_FILES): string[] {
  return ['src', 'adapters']
    .flatMap((folder) => filesBelow(root, folder))
    .filter((file) => file.endsWith('.ts') && !/\.(test|fixture)\.ts$/.test(file) && !file.includes('/gen/'))
    .filter((file) => !file.startsWith(FOLDER) && !Object.keys(allowed).some((start) => file.startsWith(start)))
    .flatMap((file) => {
      const lines = readFileSync(join(root, file), 'utf8').split('\n');
      return lines.flatMap((line, at) => {
        const [name] = GATEWAY.exec(withoutReviewed(line)) ?? [];
        return name === undefined ? [] : [`${file}:${at + 1}: names ${name}; a gateway is named in its folder alone`];
      });
    });
}

const withoutReviewed = (line: string): string => REVIEWED.reduce((text, { term }) => text.replaceAll(term, ''), line);
