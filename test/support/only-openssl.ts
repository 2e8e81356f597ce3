import { extension } from '../../sandbox/tls/x509.ts';

/** A Netscape certificate type "server": only OpenSSL knows it, and refuses such a leaf as a client. */
export const onlyOpensslRefuses = (): Buffer => extension('2.16.840.1.113730.1.1', Buffer.from([3, 2, 6, 0x40]));
