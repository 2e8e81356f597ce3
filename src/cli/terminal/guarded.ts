import { escapeUnprintable } from '../../mesh/input/untrusted-text.ts';
import type { Output } from '../declare/command.ts';

/** How colours, the cursor and the beginning of a line are set. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: each begins with one
const OWN = /(\x1b\[[0-9;?]*[A-Za-z]|\r)/;

/**
 * The output without control characters but line breaks, whatever wrote them: each is escaped as in JSON and YAML, which
 * leaves the meaning of those as it is. Printers make text of others printable before; this is for what they forget. A
 * terminal also gets the sequences by which we colour and redraw.
 */
export function guarded(output: Output): Output {
  const clean = (text: string) =>
    output.isTTY
      ? text
          .split(OWN)
          .map((part, at) => (at % 2 === 1 ? part : escapeUnprintable(part)))
          .join('')
      : escapeUnprintable(text);
  // A stream keeps its other members, which the dialog needs.
  return Object.create(output, { write: { value: (text: string) => output.write(clean(text)) } }) as Output;
}
