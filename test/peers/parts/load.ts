import { Agent, get } from 'node:http';

export interface Load {
  readonly answered: number;
  readonly failed: number;
  /** The first few failures, each with the time since the start. */
  readonly failures: readonly string[];
  /** Resolves when the requests in progress have been answered. */
  stop(): Promise<void>;
}

/**
 * Constant requests, evenly spaced, whatever their result; anything but a 200 is a failure. A function chooses the URL
 * of each request.
 */
export function startLoad(url: string | (() => string), cluster: string, perSecond: number, patienceMs = 15_000): Load {
  const agent = new Agent({ keepAlive: true });
  const started = performance.now();
  const open = new Set<Promise<void>>();
  const failures: string[] = [];
  let answered = 0;
  let failed = 0;
  const fail = (reason: string) => {
    failed += 1;
    if (failures.length < 10) failures.push(`${Math.round(performance.now() - started)} ms: ${reason}`);
  };
  const send = () => {
    const done = new Promise<void>((resolve) => {
      const to = typeof url === 'string' ? url : url();
      const request = get(to, { agent, headers: { 'x-cluster': cluster }, timeout: patienceMs }, (response) => {
        let body = '';
        response.on('data', (data) => {
          body += data;
        });
        response.on('end', () => {
          if (response.statusCode === 200) answered += 1;
          else fail(`${response.statusCode} ${body.slice(0, 200)}`);
          resolve();
        });
      });
      request.on('timeout', () => request.destroy(new Error(`no answer within ${patienceMs / 1000} s`)));
      request.on('error', (error) => {
        fail(error.message);
        resolve();
      });
    }).finally(() => open.delete(done));
    open.add(done);
  };
  const timer = setInterval(send, 1000 / perSecond);
  return {
    get answered() {
      return answered;
    },
    get failed() {
      return failed;
    },
    failures,
    async stop() {
      clearInterval(timer);
      await Promise.all(open);
      agent.destroy();
    },
  };
}
