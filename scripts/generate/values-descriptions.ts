import { isMap, isScalar, parseDocument, type YAMLMap } from 'yaml';

/** One documented value of the chart. */
export interface ValueDescription {
  /** Keys from the root, such as `['image', 'tag']`. */
  readonly path: readonly string[];
  readonly description: string;
  readonly default: unknown;
}

/**
 * The values of a values.yaml with the comments above them. A map whose own key has a comment is one value; otherwise
 * each of its keys is. Throws for a key without a comment.
 */
export function describeValues(text: string): readonly ValueDescription[] {
  const document = parseDocument(text);
  if (!isMap(document.contents)) throw new Error('values.yaml is not a map');
  return describeMap(document.contents, []);
}

function describeMap(map: YAMLMap, above: readonly string[]): ValueDescription[] {
  return map.items.flatMap(({ key, value }, at) => {
    if (!isScalar(key)) throw new Error(`values.yaml: a key of ${above.join('.')} is not text`);
    const path = [...above, String(key.value)];
    // The parser gives the comment of the first key to the map.
    const comment = paragraph(key.commentBefore ?? (at === 0 ? map.commentBefore : undefined));
    if (comment) {
      const set = value as { toJSON(): unknown } | null;
      return [{ path, description: comment, default: set?.toJSON() }];
    }
    if (isMap(value) && value.items.length > 0) return describeMap(value, path);
    throw new Error(`values.yaml: ${path.join('.')} has no comment that describes it`);
  });
}

/** The last paragraph of a comment as one line, without examples of the value before it (YAML that is commented out). */
function paragraph(comment: string | null | undefined): string {
  const last = (comment ?? '').trimEnd().split('\n\n').at(-1) ?? '';
  return last
    .split('\n')
    .filter((line) => !/^ (- | {2})/.test(line))
    .map((line) => line.trim())
    .join(' ')
    .trim();
}

/** A Markdown table of the values. */
export function renderValuesTable(values: readonly ValueDescription[]): string {
  const rows = values.map(
    ({ path, description, default: set }) =>
      `| \`${path.join('.')}\` | ${description.replaceAll('|', '\\|')} | \`${JSON.stringify(set)}\` |`,
  );
  return `${['| value | description | default |', '|---|---|---|', ...rows].join('\n')}\n`;
}

/** The schema with each description at its property. Throws when the schema lacks a value. */
export function withDescriptions(schema: object, values: readonly ValueDescription[]): object {
  const copy = structuredClone(schema);
  for (const { path, description } of values) {
    let at: { properties?: Record<string, object>; description?: string } = copy;
    for (const key of path) {
      const next = at.properties?.[key];
      if (!next) throw new Error(`values.schema.json lacks ${path.join('.')}, which values.yaml describes`);
      at = next;
    }
    at.description = description;
  }
  return copy;
}
