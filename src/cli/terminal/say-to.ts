import type { Announce } from '../../onboard/say.ts';
import type { Output } from '../declare/command.ts';

/** Lines as they come; what is waited for stands in one line on a terminal, and else once for each change. */
export function sayTo(output: Output): Announce {
  let waiting = '';
  const told = new Set<string>();
  const clear = () => {
    if (waiting && output.isTTY) output.write('\r\x1b[K');
    waiting = '';
  };
  return {
    line(text) {
      clear();
      output.write(`${text}\n`);
    },
    waiting(text) {
      if (output.isTTY) {
        clear();
        output.write(`... ${text}`.slice(0, (output.columns ?? 80) - 1));
      } else if (!told.has(text)) output.write(`... ${text}\n`);
      told.add(text);
      waiting = text;
    },
  };
}
