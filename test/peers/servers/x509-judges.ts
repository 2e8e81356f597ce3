import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before } from 'node:test';
import { ROOT } from '../../../scripts/tree.ts';
import { peer } from '../build.ts';

/** A client certificate as an upstream receives it. All PEM; the chain leaf first, as it is sent. */
export interface Presented {
  readonly chain: string;
  /** The bundle that the upstream trusts. */
  readonly roots: string;
  readonly key?: string;
}

export interface GoQuestion extends Presented {
  /** Epoch ms; absent: now. */
  readonly at?: number;
  /** Default: a client. */
  readonly usages?: readonly ('client' | 'server' | 'any')[];
  /** The one URI name that the leaf must have. */
  readonly uri?: string;
  /** A DNS name for which the leaf must be valid. */
  readonly dns?: string;
  /** Also completes a TLS 1.3 handshake; needs the key. */
  readonly handshake?: boolean;
  /** PEM: each certificate up to the root must have a CRL of its issuer here that does not name it. */
  readonly crls?: string;
}

export interface JudgeVerdict {
  readonly ok: boolean;
  /** The step that refused it: `parse`, `key`, `verify`, `crl`, `revoked`, `name`, `roots`, `load`, `handshake`. */
  readonly stage?: string;
  /** The judge's own message. */
  readonly reason?: string;
  /** OpenSSL refuses it, and would accept it with partial chains: each certificate of the bundle ends a path, as in Envoy. */
  readonly partial?: boolean;
}

/** A process that answers questions in order. Questions may be asked while others wait for their answer. */
export class LineJudge<Q extends Presented> implements AsyncDisposable {
  readonly #name: string;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (verdict: JudgeVerdict) => void; reject: (error: Error) => void }>();
  #log = '';
  #next = 1;
  #ended: Error | undefined;

  constructor(name: string, file: string, args: readonly string[] = []) {
    this.#name = name;
    this.#child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#log = (this.#log + text).slice(-4096)));
    this.#child.stdin?.on('error', () => undefined);
    this.#child.once('error', (cause) => this.#end(new Error(`the ${name} judge cannot be started`, { cause })));
    this.#child.once('close', (code) => this.#end(new Error(`the ${name} judge ended with ${code}\n${this.#log}`)));
    if (this.#child.stdout) createInterface(this.#child.stdout).on('line', (line) => this.#answer(line));
  }

  judge(question: Q): Promise<JudgeVerdict> {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#child.stdin?.write(`${JSON.stringify({ ...question, id })}\n`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    const closed = once(this.#child, 'close');
    this.#child.stdin?.end();
    await closed;
  }

  #answer(line: string): void {
    const { id, ...verdict } = JSON.parse(line) as JudgeVerdict & { id: number };
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (verdict.stage === 'request') waiting?.reject(new Error(`the ${this.#name} judge: ${verdict.reason}`));
    else waiting?.resolve(verdict);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

export interface Judges {
  readonly go: GoJudge;
  readonly openssl: OpensslJudge;
}

export type GoJudge = LineJudge<GoQuestion>;
export type OpensslJudge = LineJudge<Required<Presented>>;

/** Go's crypto/x509 and crypto/tls. It can judge at any time. */
export async function startGoJudge(): Promise<GoJudge> {
  return new LineJudge('Go', await peer('x509-judge'));
}

/** The OpenSSL that Python links, which is the system's and not the one inside Node. */
export function startOpensslJudge(): OpensslJudge {
  return new LineJudge('OpenSSL', 'python3', [join(ROOT, 'test', 'peers', 'python', 'openssl-judge.py')]);
}

/** Both, from the start to the end of the suite that calls this. To be read within a test. */
export function judgesOfSuite(): Judges {
  const judges: { go?: GoJudge; openssl?: OpensslJudge } = {};
  const running = <J>(judge: J | undefined): J => {
    if (!judge) throw new Error('the judges are started before the first test of the suite');
    return judge;
  };
  before(async () => {
    judges.go = await startGoJudge();
    judges.openssl = startOpensslJudge();
  });
  after(async () => {
    await judges.go?.[Symbol.asyncDispose]();
    await judges.openssl?.[Symbol.asyncDispose]();
  });
  return {
    get go() {
      return running(judges.go);
    },
    get openssl() {
      return running(judges.openssl);
    },
  };
}
