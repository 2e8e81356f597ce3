declare const MESHCERT_VERSION: string | undefined;

/** The bundle's version; `dev` when run from source. */
export const VERSION: string = typeof MESHCERT_VERSION === 'string' ? MESHCERT_VERSION : 'dev';
