import fc from 'fast-check';
import { children, octetString, readTlv, TAG, tlv } from '../../src/pki/der.ts';

/** A DER value with its children, even inside an OCTET STRING. */
interface Node {
  tag: number;
  readonly inside: Node[] | undefined;
  content: Buffer;
}

/** The edit of the node at `at`, counted from the root, modulo the number of nodes. */
export interface Edit {
  readonly at: number;
  readonly how: 'remove' | 'repeat' | 'swap' | 'tag' | 'byte' | 'bit' | 'append' | 'prepend' | 'empty' | 'cut';
  readonly value: number;
}

export const edits: fc.Arbitrary<Edit> = fc.record({
  at: fc.nat(200),
  how: fc.constantFrom('remove', 'repeat', 'swap', 'tag', 'byte', 'bit', 'append', 'prepend', 'empty', 'cut'),
  value: fc.nat(255),
});

/** The value with some of its parts edited: its lengths are correct again, whatever the content. */
export function edited(der: Buffer, list: readonly Edit[]): Buffer {
  const root = read(der);
  for (const edit of list) apply(root, edit);
  return write(root);
}

function read(der: Buffer): Node {
  const value = readTlv(der);
  const { tag, content } = value;
  if ((tag & 0x20) !== 0) return { tag, content, inside: children(value).map(({ raw }) => read(raw)) };
  try {
    const inner = tag === TAG.octetString ? readTlv(content) : undefined;
    if (inner?.raw.length === content.length) return { tag, content, inside: [read(content)] };
  } catch {
    // Bytes without children.
  }
  return { tag, content, inside: undefined };
}

function write({ tag, inside, content }: Node): Buffer {
  const whole = inside ? Buffer.concat(inside.map(write)) : content;
  return tag === TAG.octetString ? octetString(whole) : tlv(tag, whole);
}

function apply(root: Node, { at, how, value }: Edit): void {
  const all = places(root);
  const place = all[at % all.length];
  if (!place) return;
  const { node, siblings, index } = place;
  const { content } = node;
  switch (how) {
    case 'remove':
      siblings.splice(index, 1);
      return;
    case 'repeat':
      siblings.splice(index, 0, node);
      return;
    case 'swap':
      siblings.splice(index, 1);
      siblings.splice(value % (siblings.length + 1), 0, node);
      return;
    case 'tag':
      node.tag = (value & 0x1f) === 0x1f ? TAG.null : value;
      return;
    case 'empty':
      node.inside?.splice(0);
      node.content = Buffer.alloc(0);
      return;
    case 'cut':
      node.inside?.pop();
      node.content = content.subarray(0, -1);
      return;
    case 'append':
      node.inside?.push({ tag: TAG.null, content: Buffer.alloc(0), inside: undefined });
      node.content = Buffer.concat([content, Buffer.of(value)]);
      return;
    case 'prepend':
      node.inside?.unshift({ tag: TAG.null, content: Buffer.alloc(0), inside: undefined });
      node.content = Buffer.concat([Buffer.of(value % 3), content]);
      return;
    default: {
      const changed = Buffer.from(content);
      const where = at % (changed.length || 1);
      if (changed.length > 0) changed[where] = how === 'byte' ? value : (changed[where] ?? 0) ^ (1 << (value % 8));
      node.content = changed;
    }
  }
}

function places(node: Node): { node: Node; siblings: Node[]; index: number }[] {
  const inside = node.inside ?? [];
  return inside.flatMap((child, index) => [{ node: child, siblings: inside, index }, ...places(child)]);
}
