declare const MESHCERT_VERSION: string | undefined;

/** Version of the package; set when the bundle is built. */
export const VERSION = typeof MESHCERT_VERSION === 'undefined' ? '0.0.0-source' : MESHCERT_VERSION;
