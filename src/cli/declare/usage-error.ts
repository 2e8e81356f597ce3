/** The flags were wrong; the message says which, and the usage is shown after it. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
