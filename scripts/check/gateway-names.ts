import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { trackedBelow } from '../tree.ts';

const GATEWAY = /emissary|ambassador|tls_?context|mapping/i;
const FOLDER = 'src/gateway/emissary/';

/** Names that are public and stay, or that mean something else; reviewed. */
const REVIEWED: readonly { readonly term: RegExp; readonly why: string }[] = [
  { term: /\bmappings\b/g, why: 'the field `mappings` of spec and status' },
  {
    term: /'MAPPINGS'|<h3>Mappings<\/h3>|No Mapping uses it/g,
    why: 'the heading of that field in the status table and on the page',
  },
  {
    term: /Mappings that refer to this certificate, or are selected to|have a TLSContext of their own/g,
    why: 'the description of status fields',
  },
  { term: /['"/-][a-z-]*mappings[a-z-]*\.ts'/g, why: 'names of files that keep their history' },
  {
    term: /gateway\/emissary\/gateway\.ts'|\bimport \{ emissary \}|\[emissary as Gateway\b/g,
    why: 'the list of gateways',
  },
  { term: /-n emissary\b|serviceaccount:emissary:/g, why: 'a namespace, in examples of commands' },
  { term: /(\.default\(|\?\? )'ambassador'/g, why: 'the default name of a service in Consul, which users rely on' },
  { term: /policyMappings|policy mappings/g, why: 'an extension of X.509' },
  {
    term: /--(ambassador-id|mapping)\b|\bambassadorId\b|\bmapping: texts\(|\bflags\.mapping\b/g,
    why: 'flags of the command line',
  },
];

/** Files that may name a gateway, by how their path begins, and why. */
export const ALLOWED_FILES: Readonly<Record<string, string>> = {
  'adapters/consul/cluster.ts': "the drop-in for Ambassador's own Consul connector",
};

/** `file:line: the name` of each gateway that product code outside its folder names. */
export function gatewayNames(root: string, allowed: Readonly<Record<string, string>> = ALLOWED_FILES): string[] {
  return ['src', 'adapters']
    .flatMap((folder) => trackedBelow(root, folder))
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts') && !file.includes('/gen/'))
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
