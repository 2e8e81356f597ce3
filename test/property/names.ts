import fc from 'fast-check';

const segment = fc.stringMatching(/^[A-Za-z0-9_-]{1,20}$/);

export const spiffeIds = fc
  .tuple(fc.stringMatching(/^[a-z0-9][a-z0-9.-]{0,30}$/), fc.array(segment, { maxLength: 5 }))
  .map(([domain, path]) => `spiffe://${[domain, ...path].join('/')}`);

export const dnsNames = fc
  .array(fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?$/), { minLength: 1, maxLength: 5 })
  .map((labels) => labels.join('.'));

/** Printable ASCII with all that OpenSSL's text form has to quote. */
export const awkwardNames = fc
  .array(fc.constantFrom('a', 'B', '9', '.', '-', ',', ' ', '"', '\\', ':', ';', '=', 'DNS:', 'URI:', "'", '%'), {
    minLength: 1,
    maxLength: 12,
  })
  .map((parts) => parts.join(''));
