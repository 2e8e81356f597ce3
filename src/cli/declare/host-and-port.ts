import { hostPort } from '../../mesh/schema/address.ts';

const address = hostPort('web.shop:443');

/** A flag's value, by the rule for addresses in configuration. Throws an Error that says what was expected. */
export function hostAndPort(text: string): string {
  const { success, data, error } = address.safeParse(text);
  if (!success) throw new Error(error.issues[0]?.message);
  return data;
}
