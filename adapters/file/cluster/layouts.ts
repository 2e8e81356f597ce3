/** File names by the program that writes them. */
export const LAYOUTS = {
  istio: { certificate: 'cert-chain.pem', key: 'key.pem', bundle: 'root-cert.pem' },
  tls: { certificate: 'tls.crt', key: 'tls.key', bundle: 'ca.crt' },
  'spiffe-helper': { certificate: 'svid.pem', key: 'svid_key.pem', bundle: 'svid_bundle.pem' },
} as const;

export type LayoutName = keyof typeof LAYOUTS;

/** Where certificate, key and roots stand; of a credential bundle, the first two are one file. */
export interface FilePaths {
  readonly certificate: string;
  readonly key: string;
  readonly bundle: string;
}

/** The part of `spec.file` that says where the files are. */
export interface FileNames {
  readonly directory?: string | undefined;
  readonly layout?: LayoutName | undefined;
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  readonly credentialBundle?: string | undefined;
  readonly bundle?: string | undefined;
}

export function pathsOf({ directory, layout = 'tls', ...given }: FileNames): FilePaths {
  if (directory !== undefined) {
    const { certificate, key, bundle } = LAYOUTS[layout];
    const below = (name: string) => `${directory.replace(/(?<!\/)\/+$/, '')}/${name}`;
    return { certificate: below(certificate), key: below(key), bundle: below(bundle) };
  }
  const { certificate = given.credentialBundle ?? '', key = given.credentialBundle ?? '', bundle = '' } = given;
  return { certificate, key, bundle };
}

const split = (path: string): readonly [string, string] => {
  const at = path.lastIndexOf('/') + 1;
  return [path.slice(0, at), path.slice(at)];
};

/** The part of `spec.file` that names these paths, which are absolute. */
export function configOf({ certificate, key, bundle }: FilePaths): Readonly<Record<string, string>> {
  if (certificate === key) return { credentialBundle: certificate, bundle };
  const [[directory, leaf], [second, secret], [third, roots]] = [split(certificate), split(key), split(bundle)];
  const layout = Object.entries(LAYOUTS).find(
    ([, names]) => names.certificate === leaf && names.key === secret && names.bundle === roots,
  );
  if (!layout || directory !== second || directory !== third) return { certificate, key, bundle };
  return { directory: directory.replace(/(?<=.)\/$/, ''), layout: layout[0] };
}

/** The layout whose files are all among these; the first one counts. */
export const layoutOf = (names: readonly string[]): LayoutName | undefined =>
  (Object.keys(LAYOUTS) as LayoutName[]).find((layout) =>
    Object.values(LAYOUTS[layout]).every((name) => names.includes(name)),
  );
