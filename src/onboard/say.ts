/** Where the course of things is told. */
export interface Announce {
  /** A line that stays. */
  line(text: string): void;
  /** What is waited for now; told again only when it is something else. */
  waiting(text: string): void;
}
