import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { MeshError, type MeshErrorCode } from '../../src/mesh/error.ts';
import type { Identity } from '../../src/mesh/identity.ts';

/** The next identity of a stream, which must not end. */
export async function next(values: AsyncIterator<Identity>): Promise<Identity> {
  const { done, value } = await values.next();
  assert.ok(!done, 'the stream ended');
  return value;
}

/** The stream fails with this code and a message like this. */
export async function refused(values: AsyncIterator<Identity>, code: MeshErrorCode, message: RegExp): Promise<void> {
  const error = await next(values).then(
    (identity) => assert.fail(`it sent ${identity.id}`),
    (reason) => reason,
  );
  assert.ok(error instanceof MeshError, inspect(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, message);
}
