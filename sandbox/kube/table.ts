import type { Kind, PrinterColumn } from './objects/kinds.ts';
import { fieldsIn, isFields, type JsonFields, type Stored } from './objects/object.ts';

const NAME: PrinterColumn = { name: 'Name', type: 'string', jsonPath: '.metadata.name' };
const AGE: PrinterColumn = { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' };

/** `meta.k8s.io/v1 Table`, which kubectl requests for printing. */
export function table(kind: Kind, objects: readonly Stored[], now: number, resourceVersion?: string): JsonFields {
  // A definition's own columns are the only ones; the server shows the age only without any.
  const columns = kind.schema && kind.columns ? [NAME, ...kind.columns] : [NAME, ...(kind.columns ?? []), AGE];
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: resourceVersion === undefined ? {} : { resourceVersion },
    columnDefinitions: columns.map((column) => ({
      name: column.name,
      type: column.type === 'count' ? 'integer' : column.type === 'date' ? 'string' : column.type,
      format: column === NAME ? 'name' : '',
      description: column.description ?? '',
      priority: column.priority ?? 0,
    })),
    rows: objects.map((object) => ({
      cells: columns.map((column) => cell(column, object, now)),
      object: { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata },
    })),
  };
}

function cell(column: PrinterColumn, object: Stored, now: number): unknown {
  const value = follow(object, column.jsonPath);
  if (column.type === 'count') return Object.keys(fieldsIn(value)).length;
  if (value === undefined) return column.type === 'integer' ? null : '';
  return column.type === 'date' ? since(String(value), now) : value;
}

/** Fields, `[n]` and `[?(@.field=="value")]`: the JSONPath that printer columns use. */
export function follow(object: unknown, jsonPath: string): unknown {
  let value = object;
  for (const [, field, index, key, wanted] of jsonPath.matchAll(
    /\.((?:[^.[\\]|\\.)+)|\[(\d+)\]|\[\?\(@\.(\w+)\s*==\s*["']([^"']*)["']\)\]/g,
  )) {
    if (field !== undefined) value = isFields(value) ? value[field.replaceAll('\\', '')] : undefined;
    else if (!Array.isArray(value)) return undefined;
    else if (index !== undefined) value = value[Number(index)];
    else value = value.find((item) => key !== undefined && fieldsIn(item)[key] === wanted);
  }
  return value;
}

/** `5m12s`, `3h`, `12d`: an age in the format of kubectl. */
function since(time: string, now: number): string {
  const seconds = Math.floor((now - Date.parse(time)) / 1000);
  if (Number.isNaN(seconds)) return '<invalid>';
  const sign = seconds < 0 ? '-' : '';
  const size = Math.abs(seconds);
  const minutes = Math.floor(size / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes < 2) return `${sign}${size}s`;
  if (minutes < 10) return `${sign}${minutes}m${size % 60 ? `${size % 60}s` : ''}`;
  if (hours < 3) return `${sign}${minutes}m`;
  if (hours < 8) return `${sign}${hours}h${minutes % 60 ? `${minutes % 60}m` : ''}`;
  if (hours < 48) return `${sign}${hours}h`;
  return `${sign}${Math.floor(hours / 24)}d`;
}
