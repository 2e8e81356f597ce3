import { open } from 'node:fs/promises';
import type { AuditEvent } from '../peers/servers/kube-client.ts';
import type { Tally } from './tally.ts';

const CHUNK = 1 << 20;

/** Reads an API server's audit log from where the last call ended, and counts its entries. */
export class AuditTail {
  readonly #path: string;
  readonly #tally: Tally;
  /** Watches, which have an entry when they begin and another when they end. */
  readonly #begun = new Set<string>();
  #offset = 0;

  constructor(path: string, tally: Tally) {
    this.#path = path;
    this.#tally = tally;
  }

  async read(): Promise<void> {
    await using file = await open(this.#path);
    for (const buffer = Buffer.alloc(CHUNK); ; ) {
      const { bytesRead } = await file.read(buffer, 0, CHUNK, this.#offset);
      const end = buffer.subarray(0, bytesRead).lastIndexOf('\n') + 1;
      if (end === 0) return;
      this.#offset += end;
      for (const line of buffer.toString('utf8', 0, end - 1).split('\n')) this.#count(JSON.parse(line));
    }
  }

  #count({ auditID, stage, verb, requestURI, userAgent = '', objectRef }: AuditEvent): void {
    if (stage === 'ResponseStarted') this.#begun.add(auditID);
    else if (this.#begun.delete(auditID)) return;
    const status = /\/status(\?|$)/.test(requestURI) ? '/status' : '';
    this.#tally.add(userAgent, `${verb} ${objectRef?.resource ?? ''}${status}`);
  }
}
