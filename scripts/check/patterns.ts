import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import vm from 'node:vm';
import fc from 'fast-check';
import ts from 'typescript';
import { trackedBelow } from '../tree.ts';

/** A regular expression of the product, and where it is. */
export interface Pattern {
  readonly place: string;
  readonly source: string;
  readonly flags: string;
}

const NOT_SHIPPED = /\.(test|fixture)\.ts$|\/sandbox\/|^src\/demo\//;
/** Without one of these, the work at each position is bounded by the pattern. */
const UNBOUNDED = /[*+]|\{\d+,\}/;
/** Characters: of the first look, and of the two inputs that are compared. */
const FIRST = 2_000;
const LARGER = 32_000;
/** 16 times the characters take a linear pattern 16 times as long, and a quadratic one 256 times. */
const SUPERLINEAR = 64;
/** Of the first look: a quadratic pattern takes 0.2 to 2 ms, most others a hundredth of it. */
const SUSPICIOUS_MS = 0.1;
/** Of the larger input: less cannot be measured, and is harmless. A quadratic pattern takes 0.1 s or more. */
const MEASURABLE_MS = 15;
/** For all inputs of a pattern, which take a linear one a tenth of a second. */
const TIMEOUT_MS = 5_000;
const RUNS = 3;
/** For the smaller input: a run of 0.2 ms is disturbed as a whole, and then seems to grow less than it does. */
const SMALL_RUNS = 15;
/** Between repetitions: the ends of words and lines, at which a pattern may begin again. */
const SEPARATORS = ['', '-', ' ', '\n', '.'];
/** After them: what a pattern does not expect. */
const ENDS = ['', '\u0000', '\n!', 'x'];
const SAMPLES = 3;
const LONGEST_SAMPLE = 24;

/** Finds regular expressions that take more than linear time for an input made from their own parts. */
export async function slowPatterns(root: string): Promise<string[]> {
  const { patterns, problems } = await patternsOf(root);
  const slow = patterns.flatMap((pattern) => {
    const input = worstInput(pattern);
    return input === undefined
      ? []
      : [`${pattern.place}: /${pattern.source}/${pattern.flags} takes more than linear time, such as for ${input}`];
  });
  return [...problems, ...slow];
}

/** Every regular expression in the shipped sources: literals by their syntax, constructed ones by loading the module. */
export async function patternsOf(root: string): Promise<{ patterns: Pattern[]; problems: string[] }> {
  const found = new Map<string, Pattern>();
  const problems: string[] = [];
  const add = (place: string, source: string, flags: string) => {
    const key = `/${source}/${flags}`;
    if (!found.has(key)) found.set(key, { place, source, flags });
  };
  for (const file of trackedBelow(root, 'src', 'adapters')) {
    if (!/\.(ts|js)$/.test(file) || NOT_SHIPPED.test(file)) continue;
    const source = ts.createSourceFile(file, readFileSync(join(root, file), 'utf8'), ts.ScriptTarget.Latest, true);
    let isLoaded = false;
    const visit = (node: ts.Node): void => {
      const place = () => `${file}:${source.getLineAndCharacterOfPosition(node.getStart()).line + 1}`;
      if (ts.isRegularExpressionLiteral(node)) {
        const end = node.text.lastIndexOf('/');
        add(place(), node.text.slice(1, end), node.text.slice(end + 1));
      }
      if ((ts.isNewExpression(node) || ts.isCallExpression(node)) && node.expression.getText() === 'RegExp') {
        if (ts.findAncestor(node, ts.isFunctionLike)) {
          problems.push(
            `${place()}: a regular expression is made in a function, where its time cannot be checked; compare by hand, or make it a constant`,
          );
        } else isLoaded = true;
      }
      ts.forEachChild(node, visit);
    };
    visit(source);
    if (isLoaded) for (const made of await madeBy(join(root, file))) add(file, made.source, made.flags);
  }
  return { patterns: [...found.values()], problems };
}

/** The regular expressions that a module constructs while it is loaded. */
async function madeBy(file: string): Promise<RegExp[]> {
  const made: RegExp[] = [];
  const Real = globalThis.RegExp;
  globalThis.RegExp = new Proxy(Real, {
    construct: (target, args) => {
      const one = Reflect.construct(target, args) as RegExp;
      made.push(one);
      return one;
    },
  });
  try {
    await import(`${pathToFileURL(file).href}?patterns`);
  } finally {
    globalThis.RegExp = Real;
  }
  return made;
}

/** An input, described, for which the pattern takes more than linear time; undefined: none was found. */
export function worstInput({ source, flags }: Pick<Pattern, 'source' | 'flags'>): string | undefined {
  if (!UNBOUNDED.test(source)) return undefined;
  const attacks = [...attacksOn(source, flags)];
  const pattern = new RegExp(source, flags.includes('g') ? flags : `${flags}g`);
  // Regular expressions can be interrupted in a context of their own only.
  const context = vm.createContext({
    attacks,
    pattern,
    limits: LIMITS,
    now: () => performance.now(),
    current: undefined,
  });
  try {
    return vm.runInContext(TRIAL, context, { timeout: TIMEOUT_MS });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    return context.current;
  }
}

const LIMITS = { FIRST, LARGER, SUPERLINEAR, SUSPICIOUS_MS, MEASURABLE_MS, RUNS, SMALL_RUNS };

/** The shortest of several runs counts: a busy machine makes a run longer, and never shorter. */
const TRIAL = `
  const time = ({ before, unit, end }, length) => {
    const input = before + unit.repeat(Math.ceil(length / unit.length)) + end;
    const start = now();
    input.replace(pattern, '');
    return now() - start;
  };
  const isSlow = (attack) => {
    if (time(attack, limits.FIRST) < limits.SUSPICIOUS_MS) return false;
    const shortest = (length, runs) => Math.min(...Array.from({ length: runs }, () => time(attack, length)));
    const small = shortest(limits.FIRST, limits.SMALL_RUNS);
    const large = shortest(limits.LARGER, limits.RUNS);
    return large > limits.MEASURABLE_MS && large / small > limits.SUPERLINEAR;
  };
  attacks.find((attack) => isSlow((current = attack.name, attack)))?.name;
`;

interface AttackText {
  readonly name: string;
  readonly before: string;
  readonly unit: string;
  readonly end: string;
}

/** Parts of texts that match, repeated after what precedes them, and without what must follow. */
function* attacksOn(source: string, flags: string): Generator<AttackText> {
  const seen = new Set<string>();
  for (const sample of samplesOf(source, flags)) {
    for (let from = 0; from < sample.length; from++) {
      for (let to = from + 1; to <= sample.length; to++) {
        // Long parts in the middle repeat what shorter ones show.
        if (from > 0 && to - from > 3) break;
        for (const separator of SEPARATORS) {
          const unit = sample.slice(from, to) + separator;
          const before = sample.slice(0, from);
          for (const end of ENDS) {
            const name = `${JSON.stringify(before)} + ${JSON.stringify(unit)} repeated + ${JSON.stringify(end)}`;
            if (seen.has(name)) continue;
            seen.add(name);
            yield { name, before, unit, end };
          }
        }
      }
    }
  }
}

/** The generator knows no assertions, references and ignored cases, and takes minutes for all that is not ASCII. */
function samplesOf(source: string, flags: string): string[] {
  const plain = source
    .replace(/\(\?<?[=!][^()]*\)|\\[bB]/g, '')
    .replace(/\\p\{\w+\}/g, '\\u200b')
    .replace(/\\[1-9]/g, 'x')
    .replace('[^ -~]', 'é');
  const texts = fc.sample(fc.stringMatching(new RegExp(plain, flags.replace(/[giy]/g, '')), { size: 'small' }), {
    seed: 25,
    numRuns: SAMPLES,
  });
  return texts.map((text) => text.slice(0, LONGEST_SAMPLE));
}
