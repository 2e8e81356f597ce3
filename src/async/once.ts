/** Something that ends when it is first disposed. */
export function once(end: () => void): Disposable {
  let open = true;
  return {
    [Symbol.dispose]: () => {
      if (!open) return;
      open = false;
      end();
    },
  };
}
