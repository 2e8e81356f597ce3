import type { Judged } from './run.ts';

/** A kind of disagreement between the judges that is known and intended. */
export interface Kind {
  /** The property of a certificate, chain or bundle, as worded in the tables of docs/reference/verification.md. */
  readonly what: string;
  /** Why the judges differ, and why that is harmless. */
  readonly why: string;
  /** Matches one of the changes of the case. */
  readonly labels: RegExp;
  /** Matches another one of its changes. */
  readonly also?: RegExp;
  /** The refusal: our code, or a reason of OpenSSL or Go. */
  readonly says: RegExp;
}

/** Refused by us, accepted by OpenSSL and Go. */
export const REFUSED_BY_US: readonly Kind[] = [
  {
    what: 'a leaf without exactly one SPIFFE ID (or without a DNS name, where the mesh uses DNS names)',
    why: 'Meshes authorize by this name. OpenSSL and Go do not know which name an upstream expects.',
    says: /^ERR_VERIFY_SAN_FORM$/,
    labels: /URI|DNS|names?\b|named by|^and |email|extensions @leaf|version.*@leaf|X\.509|address/,
  },
  {
    what: 'a certificate in the chain that issued nothing before it, or the root in the chain in the wrong place',
    why: 'Most TLS stacks search the chain for an issuer, but TLS 1.2 requires each certificate to certify the one before it. The adapters put a chain in order; what remains is a mistake of the mesh.',
    says: /^ERR_VERIFY_CHAIN_ORDER$/,
    labels:
      /in the chain|out of order|reversed|twin|certify|second way|other side|CA flag|twice|issuer|signed by|one (name|key)|name/,
  },
  {
    what: 'more than 10 certificates in the chain or 64 in the bundle',
    why: 'Limits keep a Secret and a handshake small. No mesh comes near them.',
    says: /^ERR_VERIFY_TOO_(MANY|LARGE)$/,
    labels: /more intermediates|70 roots|of 20 KB|500 names|40 extensions|100 attributes|intermediate|chain|twin/,
  },
  {
    what: 'a certificate of version 1 with an explicit version, of version 2, of version 4, or of version 1 with extensions',
    why: 'Envoy does not load it.',
    says: /^ERR_VERIFY_VERSION$/,
    labels: /version|that no one can use|unique ids|a random byte/,
  },
  {
    what: 'an empty part in a subject or issuer; a public key or a signature that ends within a byte',
    why: 'Envoy does not load it.',
    says: /^ERR_VERIFY_LOADING$/,
    labels: /empty RDN|SEQUENCE|SET|key (with unused|that says)|subject|signature with unused/,
  },
  {
    what: 'an Ed25519 leaf, or one on P-521',
    why: 'Most upstreams in a mesh are Envoys, which accept neither from a client in TLS 1.3.',
    says: /^ERR_VERIFY_KEY_TYPE$/,
    labels: /key (ed25519|p521|secp256k1|rsa1024)/,
  },
  {
    what: 'a leaf whose key usage has keyAgreement without digitalSignature',
    why: 'OpenSSL allows it for a TLS client because of a key exchange that TLS 1.3 no longer has. A leaf has to sign.',
    says: /^ERR_VERIFY_KEY_USAGE$/,
    labels: /usage (agreement|decipher)/,
  },
  {
    what: 'policy constraints, policy mappings or inhibitAnyPolicy',
    why: 'Only a verifier that is configured with policies acts on them. No mesh uses them, and BoringSSL processes some that OpenSSL ignores.',
    says: /^ERR_VERIFY_CRITICAL_EXTENSION$/,
    labels: /policy|policies/,
  },
  {
    what: 'name constraints on directory names, other names, registered IDs',
    why: 'They constrain names that workloads do not have. OpenSSL processes some, Go ignores those that are not critical.',
    says: /^ERR_VERIFY_NAME_CONSTRAINTS$/,
    labels: /(permitted|excluded) (directory|other name|registered)|constraint/,
  },
  {
    what: 'a name constraint or an alternative name that is not well formed (a wildcard, scheme or port in a constraint; a URI that Go cannot parse, on an issuer)',
    why: 'Readers differ in what they do with it: it may be ignored by one and refused by the next.',
    says: /^ERR_VERIFY_MALFORMED$/,
    labels:
      /(permitted|excluded|named by|names?|constraint|DNS|URI|EDI|constructed)|key usage encoded|email|twice|with a tail|address|extended usage nothing/,
  },
  {
    what: 'two certificates for one subject and key, one refused for a reason in this table, the other by everybody',
    why: 'The error names the path that breaks the last rule.',
    says: /^ERR_VERIFY_(LINK_EXPIRED|ISSUER_\w+|PATH_LENGTH|CRITICAL_EXTENSION|NAME_CONSTRAINTS)$/,
    labels: /^a twin /,
    also: /policy|policies|NULL|PSS|(permitted|excluded) |constraint of|named by|URI|DNS|email|address|key usage encoded|with a tail/,
  },
  {
    what: 'two certificates for one subject and key, the first of which has expired or is not valid yet',
    why: 'Envoy takes the first that fits by its name, from the bundle before the chain. OpenSSL takes the first that is valid.',
    says: /^ERR_VERIFY_LINK_EXPIRED$/,
    labels: /^a twin of .*, (expired|not yet valid), before/,
  },
  {
    what: 'an intermediate in the bundle whose issuer is in the bundle too, and has expired or is not valid yet',
    why: 'Envoy follows the path to the issuer. OpenSSL passes over it.',
    says: /^ERR_VERIFY_LINK_EXPIRED$/,
    labels: /^(expired|not yet valid|valid|time|not).* @root/,
    also: /intermediate is in the bundle/,
  },
  {
    what: 'a path length in basic constraints without the CA flag',
    why: 'Envoy refuses it, on a leaf too.',
    says: /^ERR_VERIFY_MALFORMED$/,
    labels: /^path length without CA flag/,
  },
  {
    what: 'an IP address in a leaf, below name constraints on addresses',
    why: 'Envoy compares none.',
    says: /^ERR_VERIFY_NAME_CONSTRAINTS$/,
    labels: /IP|both kinds of names/,
  },
  {
    what: 'a wildcard or an empty DNS name, below name constraints',
    why: 'RFC 5280 does not say whether it matches. One reader takes the asterisk for a label, the next for every label.',
    says: /^ERR_VERIFY_NAME_CONSTRAINTS$/,
    labels: /^(and )?DNS "([^"]*\*|")/,
    also: /^(permitted|excluded) /,
  },
  {
    what: 'an ECDSA signature algorithm with NULL parameters',
    why: 'RFC 5758 forbids it, and no known CA writes it.',
    says: /^ERR_VERIFY_SIGNATURE_ALGORITHM$/,
    labels: /NULL beside the algorithm|PSS|signed/,
  },
  {
    what: 'a root that is not DER to the letter, such as with a time that has an offset, beside one that is good',
    why: 'Envoy loads the bundle as a whole. Go skips a root that it cannot read, and OpenSSL reads it.',
    says: /^ERR_(CERT_SYNTAX|DER_SYNTAX)$/,
    labels: /@root/,
  },
  {
    what: 'a certificate in the chain that is not DER to the letter, such as with a time that has an offset, beside another one for the same subject and key',
    why: 'A gateway loads the chain as a whole. OpenSSL reads such times, and Go finds the path without it.',
    says: /^ERR_(CERT_SYNTAX|DER_SYNTAX)$/,
    labels: /an offset|without seconds/,
    also: /twin of the intermediate|with the name and key of the root/,
  },
  {
    what: 'a leaf that is its own issuer, or has the key of a CA',
    why: 'Who has the key of a CA can issue any leaf. No mesh issues such a leaf. OpenSSL and Go accept one whose name is not that of its issuer, or that is in the bundle itself.',
    says: /^ERR_VERIFY_LEAF_KEY$/,
    labels: /one (name and )?key|one name|^the leaf |the key of the issuer|subject|issuer name|with the name and key/,
  },
  {
    what: 'a leaf that is a CA and its own issuer',
    why: 'A CA certificate at the front is mostly a chain in the wrong order. No mesh issues such a leaf.',
    says: /^ERR_VERIFY_CHAIN_ORDER$/,
    labels: /^the leaf issues itself/,
    also: /^path length/,
  },
];

/** Accepted by our checks and refused by OpenSSL in the preflight handshake: what only OpenSSL can detect. */
export const REFUSED_BY_PREFLIGHT: readonly Kind[] = [
  {
    what: 'a certificate that begins within the next 30 s',
    why: 'The clock of an issuer may be ahead of ours by that much. The agent makes the handshake when the certificate begins, and publishes it then.',
    says: /not yet valid/i,
    labels: /^valid in 10 s/,
  },
  {
    what: 'two authorities with one name and different keys, below which a certificate has no authority key identifier',
    why: 'A valid path exists, and Go finds it. OpenSSL and Envoy take the first by its name. The CAs of all meshes write the identifier.',
    says: /signature failure/i,
    labels: /^a twin of .*, of another key/,
    also: /^no authority key id/,
  },
  {
    what: 'two certificates for one subject and key, the first of which is not usable',
    why: 'A valid path exists, and Go finds it. OpenSSL takes the first certificate that fits by name and time and does not go back.',
    says: /./,
    labels: /twin/,
  },
  {
    what: 'a leaf with the subject of its issuer',
    why: 'OpenSSL takes it for a self-signed certificate.',
    says: /self.signed/i,
    labels: /one name|subject|issuer name/,
  },
  {
    what: 'an intermediate with the name of the root, whose authority key identifier names no key',
    why: 'A valid path exists, and Go finds it. OpenSSL takes the intermediate for a self-signed certificate.',
    says: /self.signed/i,
    labels: /^authority key id by name/,
    also: /intermediate with the name of the root/,
  },
  {
    what: 'an intermediate that is itself in the bundle, or has the name and key of a root there, and is signed with SHA-1',
    why: 'Its signature is not part of the path, and Go does not look at it. OpenSSL does not load it into the chain.',
    says: /CA_MD_TOO_WEAK/,
    labels: /sha-?1 @intermediate/i,
    also: /intermediate (is (in the bundle|the only root)|with the name and key of the root)/,
  },
  {
    what: 'a proxy certificate extension, or a Netscape certificate type, that is not critical',
    why: 'OpenSSL acts on both; nobody else knows them.',
    says: /./,
    labels: /extension (proxy|Netscape)/,
  },
  {
    what: 'a subject with a NUL below name constraints',
    why: 'OpenSSL also compares the constraints with the common name of a leaf that has no DNS name, and refuses one that it cannot read.',
    says: /invalid name syntax/i,
    labels: /subject with .*NUL/,
    also: /DNS|^(permitted|excluded) /,
  },
  {
    what: 'two certificates for one subject and key under different roots, the first of which is not in the bundle',
    why: 'A valid path exists, and Go finds it. OpenSSL follows the first issuer in the chain.',
    says: /./,
    labels: /second way|twin|certify/,
  },
  {
    what: 'a leaf that is in the bundle itself, with certificates beside it that are not its path',
    why: 'OpenSSL looks for an issuer first, and judges that path.',
    says: /./,
    labels: /^the leaf (is|issues itself)/,
  },
];

/** Accepted by us and OpenSSL, refused by Go. Empty is best. */
export const REFUSED_BY_GO: readonly Kind[] = [];

/** Accepted by us, and by OpenSSL only with partial chains. */
export const PARTIAL: Kind = {
  what: 'a path that ends in a certificate of the bundle that another one issued',
  why: 'Envoy, Go and rustls treat each certificate of the bundle as an anchor; OpenSSL does so only with the partial-chain flag.',
  says: /./,
  labels: /./,
};

/** The known kind of a disagreement; undefined when there is none, which is a bug. */
export function knownKind({ at, ours, openssl, go }: Judged): Kind | undefined {
  const fits =
    (said: string | undefined) =>
    ({ says, labels, also }: Kind) =>
      says.test(said ?? '') &&
      at.labels.some(
        (label) => labels.test(label) && (!also || at.labels.some((other) => other !== label && also.test(other))),
      );
  if (!ours.ok)
    return ours.checked ? REFUSED_BY_PREFLIGHT.find(fits(ours.message)) : REFUSED_BY_US.find(fits(ours.code));
  if (!openssl.ok) return openssl.partial && go.ok ? PARTIAL : undefined;
  return REFUSED_BY_GO.find(fits(go.reason));
}
