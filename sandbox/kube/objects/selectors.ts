import { type Stored, valueAt } from './object.ts';
import { badRequest } from './status.ts';

export type Predicate = (object: Stored) => boolean;

/** `a=b,c!=d,e in (f,g),h notin (i),j,!k`: the complete syntax of label selectors. */
export function labelSelector(text: string | undefined): Predicate {
  const tests = split(text ?? '').map(requirement);
  return (object) => tests.every((test) => test(object.metadata.labels ?? {}));
}

type LabelMap = Readonly<Record<string, string>>;

function requirement(text: string): (labels: LabelMap) => boolean {
  const set = /^(\S+)\s+(in|notin)\s+\(([^)]*)\)$/.exec(text);
  if (set) {
    const [, key = '', operator, list = ''] = set;
    const values = new Set(list.split(',').map((value) => value.trim()));
    return (labels) => {
      const value = labels[key];
      const within = value !== undefined && values.has(value);
      return operator === 'in' ? within : !within;
    };
  }
  const pair = /^([^=!\s]+)\s*(==|=|!=)\s*([^=!\s]*)$/.exec(text);
  if (pair) {
    const [, key = '', operator, value = ''] = pair;
    return (labels) => (operator === '!=' ? labels[key] !== value : labels[key] === value);
  }
  const bare = /^(!?)\s*([^=!\s]+)$/.exec(text);
  if (!bare) throw badRequest(`unable to parse requirement: ${text}`);
  const [, not, key = ''] = bare;
  return (labels) => key in labels === (not === '');
}

/** Splits at commas outside of parentheses. */
function split(text: string): string[] {
  return text
    .split(/,(?![^(]*\))/)
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

/** Fields that every kind may be selected by, and those that some built-in kinds add. */
const FIELDS: Readonly<Record<string, readonly string[]>> = {
  Event: [
    'involvedObject.kind',
    'involvedObject.namespace',
    'involvedObject.name',
    'involvedObject.uid',
    'involvedObject.apiVersion',
    'involvedObject.resourceVersion',
    'involvedObject.fieldPath',
    'reason',
    'reportingComponent',
    'source',
    'type',
  ],
  Secret: ['type'],
  Pod: ['spec.nodeName', 'spec.restartPolicy', 'spec.serviceAccountName', 'status.phase', 'status.podIP'],
  Namespace: ['status.phase'],
};

export interface FieldSelector {
  readonly matches: Predicate;
  /** The one name that the selector allows, if it names one. */
  readonly name: string | undefined;
}

export function fieldSelector(text: string | undefined, kind: string): FieldSelector {
  const known = ['metadata.name', 'metadata.namespace', ...(FIELDS[kind] ?? [])];
  const terms = split(text ?? '').map((part) => {
    const pair = /^([^=!]+?)(==|=|!=)(.*)$/.exec(part);
    if (!pair) throw badRequest(`invalid selector: '${part}'; can't understand '${part}'`);
    const [, field = '', operator, value = ''] = pair;
    if (!known.includes(field)) throw badRequest(`field label not supported: ${field}`);
    return { field, equal: operator !== '!=', value };
  });
  return {
    matches: (object) =>
      terms.every((term) => {
        const found = valueAt(object, ...term.field.split('.'));
        return (String(found ?? '') === term.value) === term.equal;
      }),
    name: terms.find((term) => term.field === 'metadata.name' && term.equal)?.value,
  };
}
