import { isFields } from '../objects/object.ts';

/** A compiled rule: its value for the variables that are in scope. */
export type CelRule = (scope: Readonly<Record<string, unknown>>) => unknown;

/**
 * The part of the Common Expression Language that validation rules are written in: literals, fields, operators, `has`,
 * `size`, `matches` and the other text methods, and the macros over lists. Throws SyntaxError for anything else.
 */
export function compileRule(text: string): CelRule {
  const parser = new Parser(text);
  const rule = parser.expression();
  parser.end();
  return rule;
}

const TOKEN = /\s*(\d+\.?\d*|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|[=!<>]=|&&|\|\||[-+*/%!<>()[\].,?:])/y;

type Binary = (a: unknown, b: unknown) => unknown;
const num = (value: unknown): number => Number(value);
const plus: Binary = (a, b) =>
  typeof a === 'string' ? a + String(b) : Array.isArray(a) ? [...a, ...(b as unknown[])] : num(a) + num(b);
const within: Binary = (a, b) => (Array.isArray(b) ? b.includes(a) : isFields(b) && String(a) in b);

/** Lowest precedence first; each row is left-associative. */
const LEVELS: readonly Readonly<Record<string, Binary>>[] = [
  {
    '==': (a, b) => JSON.stringify(a) === JSON.stringify(b),
    '!=': (a, b) => JSON.stringify(a) !== JSON.stringify(b),
    '<': (a, b) => (a as number) < (b as number),
    '<=': (a, b) => (a as number) <= (b as number),
    '>': (a, b) => (a as number) > (b as number),
    '>=': (a, b) => (a as number) >= (b as number),
    in: within,
  },
  { '+': plus, '-': (a, b) => num(a) - num(b) },
  { '*': (a, b) => num(a) * num(b), '/': (a, b) => num(a) / num(b), '%': (a, b) => num(a) % num(b) },
];

const METHODS: Readonly<Record<string, (self: unknown, argument: unknown) => unknown>> = {
  size: (self) => sizeOf(self),
  matches: (self, pattern) => new RegExp(String(pattern), 'u').test(String(self)),
  startsWith: (self, text) => String(self).startsWith(String(text)),
  endsWith: (self, text) => String(self).endsWith(String(text)),
  contains: (self, text) => String(self).includes(String(text)),
};

const MACROS: Readonly<Record<string, (items: unknown[], test: (item: unknown) => unknown) => unknown>> = {
  all: (items, test) => items.every(test),
  exists: (items, test) => items.some(test),
  exists_one: (items, test) => items.filter(test).length === 1,
  filter: (items, test) => items.filter(test),
  map: (items, test) => items.map(test),
};

const sizeOf = (value: unknown): number =>
  typeof value === 'string' || Array.isArray(value) ? value.length : Object.keys(value ?? {}).length;
const itemsOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : Object.keys(value ?? {}));
const CONSTANTS: Readonly<Record<string, unknown>> = { true: true, false: false, null: null };

class Parser {
  readonly #tokens: string[] = [];
  #at = 0;

  constructor(text: string) {
    for (let from = 0; from < text.trimEnd().length; from = TOKEN.lastIndex) {
      TOKEN.lastIndex = from;
      const found = TOKEN.exec(text)?.[1];
      if (found === undefined) throw new SyntaxError(`cannot read the rule at ${from}: ${text}`);
      this.#tokens.push(found);
    }
  }

  end(): void {
    if (this.#at < this.#tokens.length) throw new SyntaxError(`unexpected ${this.#tokens[this.#at]}`);
  }

  expression(): CelRule {
    const test = this.#or();
    if (!this.#take('?')) return test;
    const yes = this.expression();
    this.#need(':');
    const no = this.expression();
    return (scope) => (test(scope) ? yes(scope) : no(scope));
  }

  #or(): CelRule {
    let left = this.#and();
    while (this.#take('||')) {
      const [a, b] = [left, this.#and()];
      left = (scope) => a(scope) === true || b(scope) === true;
    }
    return left;
  }

  #and(): CelRule {
    let left = this.#binary(0);
    while (this.#take('&&')) {
      const [a, b] = [left, this.#binary(0)];
      left = (scope) => a(scope) === true && b(scope) === true;
    }
    return left;
  }

  #binary(level: number): CelRule {
    const operators = LEVELS[level];
    if (!operators) return this.#unary();
    let left = this.#binary(level + 1);
    for (;;) {
      const operator = operators[this.#tokens[this.#at] ?? ''];
      if (!operator) return left;
      this.#at += 1;
      const [a, b] = [left, this.#binary(level + 1)];
      left = (scope) => operator(a(scope), b(scope));
    }
  }

  #unary(): CelRule {
    if (this.#take('!')) {
      const inner = this.#unary();
      return (scope) => inner(scope) !== true;
    }
    if (this.#take('-')) {
      const inner = this.#unary();
      return (scope) => -num(inner(scope));
    }
    return this.#postfix();
  }

  #postfix(): CelRule {
    let self = this.#primary();
    for (;;) {
      const inner = self;
      if (this.#take('.')) self = this.#member(inner);
      else if (this.#take('[')) {
        const key = this.expression();
        this.#need(']');
        self = (scope) => fieldOf(inner(scope), key(scope));
      } else return self;
    }
  }

  #member(self: CelRule): CelRule {
    const name = this.#next();
    if (!this.#take('(')) return (scope) => fieldOf(self(scope), name);
    const macro = MACROS[name];
    if (macro) {
      const variable = this.#next();
      this.#need(',');
      const test = this.expression();
      this.#need(')');
      return (scope) => macro(itemsOf(self(scope)), (item) => test({ ...scope, [variable]: item }));
    }
    const method = METHODS[name];
    if (!method) throw new SyntaxError(`no method ${name}`);
    const [argument] = this.#list(')');
    return (scope) => method(self(scope), argument?.(scope));
  }

  #primary(): CelRule {
    const token = this.#next();
    if (token === '(') {
      const inner = this.expression();
      this.#need(')');
      return inner;
    }
    if (token === '[') {
      const items = this.#list(']');
      return (scope) => items.map((item) => item(scope));
    }
    if (/^\d/.test(token)) return () => Number(token);
    if (/^['"]/.test(token)) {
      const text = token.slice(1, -1).replaceAll(/\\(.)/g, '$1');
      return () => text;
    }
    if (token in CONSTANTS) return () => CONSTANTS[token];
    if (!/^\w+$/.test(token)) throw new SyntaxError(`unexpected ${token}`);
    if (!this.#take('(')) return (scope) => scope[token];
    const [argument] = this.#list(')');
    if (!argument || (token !== 'has' && token !== 'size')) throw new SyntaxError(`no function ${token}`);
    return token === 'has' ? (scope) => argument(scope) !== undefined : (scope) => sizeOf(argument(scope));
  }

  #list(close: string): CelRule[] {
    const items: CelRule[] = [];
    while (!this.#take(close)) {
      items.push(this.expression());
      if (!this.#take(',')) {
        this.#need(close);
        break;
      }
    }
    return items;
  }

  #take(token: string): boolean {
    if (this.#tokens[this.#at] !== token) return false;
    this.#at += 1;
    return true;
  }

  #need(token: string): void {
    if (!this.#take(token)) throw new SyntaxError(`${token} is missing`);
  }

  #next(): string {
    const token = this.#tokens[this.#at++];
    if (token === undefined) throw new SyntaxError('the rule ends too soon');
    return token;
  }
}

/** Undefined for an absent field, so that `has` can detect it. */
function fieldOf(value: unknown, name: unknown): unknown {
  if (Array.isArray(value)) return value[Number(name)];
  return isFields(value) && Object.hasOwn(value, String(name)) ? value[String(name)] : undefined;
}
