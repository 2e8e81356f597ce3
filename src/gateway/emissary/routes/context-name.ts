import { createHash } from 'node:crypto';
import type { TargetRules } from '../../../mesh/targeting.ts';

/** A label's length: long enough for names, short enough for every place where Emissary repeats it. */
const LONGEST_NAME = 63;
const HASH_DIGITS = 8;

interface TargetAccount {
  readonly serviceAccount: string;
  readonly namespace: string;
}

/**
 * `<stem>-<account>-<namespace>`: the same for the same account, no dots, at most 63 characters. If that is ambiguous
 * or too long, a hash of both names is added.
 */
export function contextNameOf(stem: string, { serviceAccount, namespace }: TargetAccount): string {
  const plain = `${stem}-${serviceAccount}-${namespace}`.replaceAll('.', '-');
  const ambiguous = /[-.]/.test(serviceAccount) || /[-.]/.test(namespace);
  if (!ambiguous && plain.length <= LONGEST_NAME) return plain;
  const hash = createHash('sha256').update(`${namespace}/${serviceAccount}`).digest('hex').slice(0, HASH_DIGITS);
  return `${plain.slice(0, LONGEST_NAME - HASH_DIGITS - 1).replace(/(?<!-)-+$/, '')}-${hash}`;
}

export interface ListedContext extends TargetAccount {
  readonly contextName: string;
  readonly sni: string;
}

export function listedContexts(selection: {
  readonly contextName: string;
  readonly rules?: TargetRules | undefined;
}): ListedContext[] {
  return (selection.rules?.listed ?? []).map(({ id, serviceAccount, namespace, contextName, name }) => ({
    sni: id,
    serviceAccount,
    namespace,
    contextName:
      contextName ??
      (name === undefined
        ? contextNameOf(selection.contextName, { serviceAccount, namespace })
        : `${selection.contextName}-${name}`),
  }));
}
