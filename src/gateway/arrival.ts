import { fields } from './kinds.ts';
import { secretFileName } from './secret-file.ts';

/** `live`: the gateway uses what is published. `stale`: something older. `absent`: it does not use this context. */
export type Arrival = 'live' | 'stale' | 'absent';

type SecretData = Readonly<Record<string, string>>;

/**
 * Whether a publication has arrived, by what Emissary's diagnostics (`/ambassador/v0/diag/?json=true`) tell: the names
 * of its files follow from their content. `undefined` when the answer is not of that form. After a batch with a
 * Mapping in it, diagnostics may be ahead of Envoy; `arrivalByCerts` knows better where its admin port is in reach.
 */
export function arrivalByDiagnostics(
  diagnostics: unknown,
  context: { readonly name: string; readonly namespace: string },
  published: { readonly identity: SecretData; readonly ca: SecretData },
): Arrival | undefined {
  const { tlscontexts } = fields(diagnostics);
  if (!Array.isArray(tlscontexts)) return undefined;
  const found = tlscontexts
    .map(fields)
    .find(
      ({ name, namespace }) => name === context.name && (namespace === undefined || namespace === context.namespace),
    );
  const info = fields(found?.secret_info);
  if (info.cert_chain_file === undefined) return 'absent';
  const fits = (path: unknown, data: SecretData) => stemOf(path) === secretFileName(data);
  return fits(info.cert_chain_file, published.identity) && fits(info.cacert_chain_file, published.ca)
    ? 'live'
    : 'stale';
}

/** The same by Envoy's admin interface (`/certs`): what is loaded. `serial` is hex, in any case. */
export function arrivalByCerts(certs: unknown, serial: string): Arrival | undefined {
  const { certificates } = fields(certs);
  if (!Array.isArray(certificates)) return undefined;
  const wanted = normal(serial);
  const loaded = certificates.flatMap((entry) => {
    const chain = fields(entry).cert_chain;
    return Array.isArray(chain) ? chain.map((one) => normal(String(fields(one).serial_number))) : [];
  });
  if (loaded.length === 0) return 'absent';
  return loaded.includes(wanted) ? 'live' : 'stale';
}

const stemOf = (path: unknown): string | undefined => /([0-9A-F]{40})\.[a-z.]+$/.exec(String(path))?.[1];
/** OpenSSL drops or keeps leading zeros as it likes. */
const normal = (serial: string): string => serial.toLowerCase().replace(/^0+(?=.)/, '');
