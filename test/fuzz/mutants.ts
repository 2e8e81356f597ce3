import type { Mutant } from '../model/mutants.ts';

const RULES = 'src/pki/chain.ts';
const CHECKS = 'src/core/checks.ts';
const ENCODING = 'src/pki/der.ts';
const rule = 'verification';

/** Each verification rule that OpenSSL or Go have too; the fuzz must notice when it is removed. */
const SHARED_RULES: readonly Omit<Mutant, 'rule'>[] = [
  {
    title: 'an issuer need not be a CA',
    file: RULES,
    from: "(isCa(ca, above) ? undefined : 'its basic constraints do not say CA:TRUE')",
    to: '(isCa(ca, above) ? undefined : undefined)',
  },
  {
    title: 'an issuer need not have the usage to sign certificates',
    file: RULES,
    from: "(ca.allows(KEY_CERT_SIGN) ? undefined : 'its key usage lacks keyCertSign')",
    to: '(ca.allows(KEY_CERT_SIGN) ? undefined : undefined)',
  },
  {
    title: 'any key of an issuer will do',
    file: RULES,
    from: '=> first(above, issuerKey) },',
    to: '=> first(above, (ca) => issuerKey(ca) && undefined) },',
  },
  {
    title: 'weak signatures are accepted',
    file: RULES,
    from: "hasCommonSignature ? undefined : 'it is signed with an algorithm that is weak or not common',",
    to: 'hasCommonSignature ? undefined : undefined,',
  },
  {
    title: 'critical extensions are not looked at',
    file: RULES,
    from: 'first(path, ({ unsupported: [id] }) => id && `',
    to: 'first(path, ({ unsupported: [id] }) => id === "" && `',
  },
  {
    title: 'path lengths are not looked at',
    file: RULES,
    from: "{ reason: 'path_length', run: pathLength },",
    to: "{ reason: 'path_length', run: (path) => pathLength(path) && undefined },",
  },
  {
    title: 'the extended usage of an issuer is not looked at',
    file: RULES,
    from: 'mayServeClients(usages) ? undefined : `its extended key usage',
    to: 'mayServeClients(usages) || true ? undefined : `its extended key usage',
  },
  {
    title: 'name constraints are not looked at',
    file: RULES,
    from: "{ reason: 'name_constraints', run: nameConstraints },",
    to: "{ reason: 'name_constraints', run: (path) => nameConstraints(path) && undefined },",
  },
  {
    title: 'the usage of the leaf is not looked at',
    file: CHECKS,
    from: 'return leaf.allows(DIGITAL_SIGNATURE)',
    to: 'return leaf.allows(DIGITAL_SIGNATURE) || true',
  },
  {
    title: 'the extended usage of the leaf is not looked at',
    file: CHECKS,
    from: 'if (mayServeClients(usages)) return undefined;',
    to: 'if (mayServeClients(usages) || true) return undefined;',
  },
  {
    title: 'certificates off the path are not read',
    file: CHECKS,
    from: 'path.ok ? (unreadable(pair, path.path) ?? preceded',
    to: 'path.ok ? (unreadable({ ...pair, chain: [] }, path.path) ?? preceded',
  },
  {
    title: 'two different signature algorithms are accepted',
    file: ENCODING,
    from: "return 'it names two different signature algorithms';",
    to: 'return undefined;',
  },
];

/** Rules for what only Envoy refuses; the pairs that a real Envoy judges must notice. */
const ENVOY_RULES: readonly Omit<Mutant, 'rule'>[] = [
  {
    title: 'an expired certificate before the valid one for the same subject and key is passed over',
    file: CHECKS,
    from: 'of [...issuers, ...above(path.at(-1), bundle)])',
    to: 'of above(path.at(-1), bundle))',
  },
  {
    title: 'an anchor whose issuer in the bundle has expired ends a path',
    file: CHECKS,
    from: 'of [...issuers, ...above(path.at(-1), bundle)])',
    to: 'of issuers)',
  },
  {
    title: 'a path length needs no CA flag',
    file: 'src/pki/extensions.ts',
    from: 'if (basic && !basic.ca && basic.pathLength !== undefined) {',
    to: 'if (basic && !basic.ca && basic.pathLength === -1) {',
  },
  {
    title: 'addresses below constraints on addresses are not looked at',
    file: 'src/pki/names.ts',
    from: 'addressed(names.ips, ',
    to: 'addressed([], ',
  },
];

export const CHECK_MUTANTS: readonly Mutant[] = [
  ...SHARED_RULES.map((mutant) => ({ rule, suite: 'fuzz' as const, ...mutant })),
  ...ENVOY_RULES.map((mutant) => ({ rule, suite: 'envoy' as const, ...mutant })),
];
