import { type Kind, PARTIAL, REFUSED_BY_PREFLIGHT, REFUSED_BY_US } from '../../test/fuzz/kinds.ts';

/** docs/reference/verification.md. */
export function renderKinds(): string {
  return [
    `# Where the judges differ

Generated from the kinds of the fuzzer by \`npm run gen\`. [verification.md](../verification.md) says who the judges are.
`,
    section('Refused by the checks, accepted by OpenSSL and Go', REFUSED_BY_US),
    section('Accepted by the checks, refused by OpenSSL', REFUSED_BY_PREFLIGHT),
    section('Accepted, and accepted by OpenSSL only with partial chains', [PARTIAL]),
  ].join('\n');
}

const section = (title: string, kinds: readonly Kind[]): string =>
  `## ${title}\n\n| what | why |\n|---|---|\n${kinds.map(({ what, why }) => `| ${what} | ${why} |\n`).join('')}`;
