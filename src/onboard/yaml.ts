import { Document, isScalar, visit } from 'yaml';

/** YAML as people write it: lists of plain words in one line, and no references from one place to another. */
export function yamlOf(object: object, options: { readonly sorted: boolean }): string {
  const document = new Document(object, { aliasDuplicateObjects: false, sortMapEntries: options.sorted });
  visit(document, {
    Seq(_, list) {
      list.flow = list.items.every((item) => isScalar(item) && !String(item.value).includes('\n'));
    },
  });
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
}
