import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import { redactText } from '../../mesh/secrets.ts';
import { connect } from '../client.ts';
import { KubeError } from './error.ts';

const secret = (): string => `k8s.${randomBytes(18).toString('base64url')}`;

function kubeconfig(user: string): string {
  return `apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: test, user: ${user}}]
`;
}

async function failureOf(user: string): Promise<KubeError> {
  const kube = connect({ kubeconfigText: kubeconfig(user), userAgent: 'test', clock: new FakeClock() });
  try {
    await kube.get({ apiVersion: 'v1', kind: 'Secret', namespace: 'a', name: 'b' });
  } catch (error) {
    if (error instanceof KubeError) return error;
    throw error;
  } finally {
    kube.close();
  }
  throw new Error('the request succeeded');
}

for (const [what, break_] of [
  ['a second line', '\\n'],
  ['a letter that is not ASCII', 'é'],
] as const) {
  test(`a kubeconfig token with ${what} is a specific error, which does not quote it`, async () => {
    const [one, two] = [secret(), secret()];
    const error = await failureOf(`{token: "${one}${break_}${two}"}`);
    assert.equal(error.code, 'ERR_KUBE_UNAUTHORIZED');
    assert.match(error.message, /authorization header of the kubeconfig's user/i);
    for (const part of [one, two]) assert.ok(!`${error.stack} ${error.cause}`.includes(part));
  });
}

test('the token and the password of a kubeconfig are redacted from then on', async () => {
  const [token, password] = [secret(), secret()];
  await failureOf(`{token: ${token}}`);
  await failureOf(`{username: admin, password: ${password}}`);
  const basic = Buffer.from(`admin:${password}`).toString('base64');
  for (const text of [token, password, basic]) assert.match(redactText(`x ${text} y`), /^x \[redacted\]=* y$/);
});
