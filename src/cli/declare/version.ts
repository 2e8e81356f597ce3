declare const MESHCERT_VERSION: string | undefined;

/** Of the package; set when the bundle is made. */
export const VERSION = typeof MESHCERT_VERSION === 'undefined' ? '0.0.0-source' : MESHCERT_VERSION;
