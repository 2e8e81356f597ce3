import { fieldSelector } from '../objects/selectors.ts';
import { badRequest } from '../objects/status.ts';
import type { FieldValidation } from './rules.ts';

export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete' | 'deletecollection';

/** A request, as the authorizer and the audit log name it. */
export interface Asked {
  readonly verb: Verb;
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
  readonly query: URLSearchParams;
}

/** Undefined for a path that names no resource: discovery, health, version. */
export function asked(method: string, url: URL): Asked | undefined {
  const parts = url.pathname
    .split('/')
    .filter((part) => part !== '')
    .map(decodeURIComponent);
  const [root, ...rest] = parts;
  const group = root === 'apis' ? rest.shift() : root === 'api' ? '' : undefined;
  const version = rest.shift();
  if (group === undefined || version === undefined || rest.length === 0) return undefined;
  let namespace: string | undefined;
  if (rest[0] === 'namespaces' && rest.length > 2 && rest[2] !== 'status' && rest[2] !== 'finalize') {
    namespace = rest[1];
    rest.splice(0, 2);
  }
  const [plural = '', inPath, subresource] = rest;
  const query = url.searchParams;
  const verb = verbOf(method, inPath !== undefined, query);
  const collection = verb === 'list' || verb === 'watch' || verb === 'deletecollection';
  const name = inPath ?? (collection ? nameIn(query) : undefined);
  return { verb, group, version, plural, namespace, name, subresource, query };
}

/** A selector for one name makes a collection request one for that name, for the authorizer too. */
function nameIn(query: URLSearchParams): string | undefined {
  const selector = query.get('fieldSelector');
  return selector?.includes('metadata.name=') ? fieldSelector(selector, '').name : undefined;
}

function verbOf(method: string, named: boolean, query: URLSearchParams): Verb {
  switch (method) {
    case 'GET':
      if (['true', '1'].includes(query.get('watch') ?? '')) return 'watch';
      return named ? 'get' : 'list';
    case 'POST':
      return 'create';
    case 'PUT':
      return 'update';
    case 'PATCH':
      return 'patch';
    case 'DELETE':
      return named ? 'delete' : 'deletecollection';
    default:
      throw badRequest(`method ${method} is not served`);
  }
}

/** The options of a write. */
export interface WriteMode {
  readonly fieldManager: string;
  readonly dryRun: boolean;
  readonly force: boolean;
  readonly validation: FieldValidation;
}

export function writeMode(query: URLSearchParams, userAgent: string): WriteMode {
  const dryRun = query.get('dryRun');
  if (dryRun !== null && dryRun !== 'All') throw badRequest(`invalid dryRun: ${dryRun}: supported values: "All"`);
  const validation = query.get('fieldValidation') ?? 'Warn';
  if (validation !== 'Strict' && validation !== 'Ignore' && validation !== 'Warn') {
    throw badRequest(`invalid fieldValidation: ${validation}`);
  }
  return {
    fieldManager: query.get('fieldManager') ?? (userAgent.split('/')[0] || 'unknown'),
    dryRun: dryRun === 'All',
    force: query.get('force') === 'true',
    validation,
  };
}
