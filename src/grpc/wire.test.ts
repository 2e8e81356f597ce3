import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadMethod, messageType } from './messages.ts';

const PUSH = 'envoy.service.discovery.v3.DiscoveryResponse';
const field = (number: number, content: Buffer) =>
  Buffer.concat([Buffer.from([number * 8 + 2]), length(content), content]);
const length = ({ length }: Buffer) => {
  const bytes: number[] = [];
  for (let rest = length; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) | 128);
  }
};

describe('an untrusted message', () => {
  const push = messageType<{ resources: { type_url: string; value: Buffer }[]; nonce: string }>(PUSH);

  it('is decoded if it has as many fields as real messages', () => {
    const resources = Array.from({ length: 256 }, (_, at) => ({ type_url: `t${at}`, value: Buffer.alloc(4096, at) }));
    const read = push.decode(push.encode({ resources, nonce: 'n' }));
    assert.equal(read.resources.length, 256);
    assert.deepEqual(read.resources[255]?.value, Buffer.alloc(4096, 255));
  });

  for (const [what, bytes] of [
    ['two million empty resources', Buffer.alloc(4_194_304, Buffer.from([0x12, 0x00]))],
    ['a hundred thousand empty fields within one resource', field(2, Buffer.alloc(200_000, Buffer.from([0x0a, 0x00])))],
    ['a hundred thousand unknown fields', Buffer.alloc(200_000, Buffer.from([0x78, 0x00]))],
    ['nested groups', Buffer.alloc(100_000, 0x0b)],
    ['a length beyond its end', Buffer.from([0x12, 0x05, 0x00])],
    ['a number without an end', Buffer.alloc(20, 0xff)],
    ['a fixed field that is cut short', Buffer.from([0x09, 0x00])],
  ] as const) {
    it(`is refused with ${what}, before it is decoded`, () => {
      assert.throws(() => push.decode(bytes), RangeError);
      const { responseDeserialize } = loadMethod('envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets');
      assert.throws(() => responseDeserialize(Buffer.from(bytes)), RangeError);
    });
  }

  it('is counted including the messages in it', () => {
    const roots = loadMethod('hashicorp.consul.connectca.ConnectCAService/WatchRoots');
    const root = field(3, Buffer.alloc(40_000, Buffer.from([0x32, 0x00])));
    assert.throws(() => roots.responseDeserialize(root), /more than 10000 fields/);
  });
});
