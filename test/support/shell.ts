import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Whether a program is on the PATH. */
export function isInstalled(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const START: Readonly<Record<string, string>> = {
  bash: 'bash --norc --noprofile -i',
  zsh: 'zsh -f -i',
  fish: 'fish --no-config --interactive',
};

/** An interactive shell on its own terminal, into which a test types. */
export class Shell implements AsyncDisposable {
  readonly #child;
  #output = '';
  #marks = 0;
  #changed: () => void = () => {};

  constructor(name: 'bash' | 'zsh' | 'fish', options: { cwd: string; env: Record<string, string> }) {
    const env = { ...options.env, TERM: 'dumb', HOME: options.cwd, SHELL: '/bin/sh', LANG: 'C.UTF-8' };
    this.#child = spawn('script', ['-qfec', START[name] ?? name, '/dev/null'], { cwd: options.cwd, env });
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
      this.#changed();
    });
  }

  /** Runs a line and resolves to its output. */
  async run(line: string): Promise<string> {
    this.#marks += 1;
    const from = this.#output.length;
    // The terminal echoes the typed text, in which the mark is in two parts.
    this.#child.stdin.write(`${line}\nprintf 'mark%s\\n' '-${this.#marks}-'\n`);
    const mark = `mark-${this.#marks}-`;
    while (!this.#output.includes(mark, from)) {
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
    return this.#output.slice(from);
  }

  /** Types the text and a tab, and resolves to the words that are then in the line. */
  async complete(text: string): Promise<readonly string[]> {
    // Ctrl-A goes to the start of the line.
    const printed = await this.run(`${text}\t\u0001printf '<%s>\\n' `);
    return [...printed.matchAll(/^<(.*)>\r?$/gm)].map(([, word = '']) => word);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#child, 'close');
    this.#child.stdin.end('exit\n');
    this.#child.kill('SIGHUP');
    await ended;
  }
}
