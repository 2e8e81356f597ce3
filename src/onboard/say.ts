/** Receives reports of progress. */
export interface Announce {
  /** A permanent line. */
  line(text: string): void;
  /** What is currently waited for; printed again only when it changes. */
  waiting(text: string): void;
}
