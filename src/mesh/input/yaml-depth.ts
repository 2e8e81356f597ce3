/** Far beyond what anybody writes; the parser takes some kilobytes for each level, and has no limit of its own. */
const DEEPEST = 500;
const COMPACT = new RegExp(`^[ \\t]*(?:[-?:] +){${DEEPEST},}`, 'm');

/** Throws a RangeError for YAML of somebody else whose collections are nested too deeply to be parsed safely. */
export function requireShallowYaml(text: string): void {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '[' || char === '{') depth += 1;
    // In text between them there may be more that close than open.
    else if ((char === ']' || char === '}') && depth > 0) depth -= 1;
    if (depth > DEEPEST) throw tooDeep();
  }
  if (COMPACT.test(text)) throw tooDeep();
}

const tooDeep = (): RangeError => new RangeError(`YAML is nested more than ${DEEPEST} levels deep`);
