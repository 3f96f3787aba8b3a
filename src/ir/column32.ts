/** Words that grow in number; `data` has room for more than `length`. */
export interface Column32 {
  data: Uint32Array;
  length: number;
}

/** An empty column with room for so many words. */
export function columnOf(room: number): Column32 {
  return { data: new Uint32Array(room), length: 0 };
}

/** A column that begins as a copy of words, with room for more. */
export function copyColumn(words: Uint32Array, room = words.length + 64): Column32 {
  const data = new Uint32Array(Math.max(room, words.length));
  data.set(words);
  return { data, length: words.length };
}

/** Makes room for `count` words of zero, and gives the place of the first. */
export function reserve(column: Column32, count: number): number {
  const from = column.length;
  column.length += count;
  if (column.length > column.data.length) {
    const larger = new Uint32Array(Math.max(column.length, 2 * column.data.length));
    larger.set(column.data);
    column.data = larger;
  }
  return from;
}

export function push(column: Column32, word: number): void {
  const at = reserve(column, 1);
  column.data[at] = word;
}

/** The words without the room. */
export function finish({ data, length }: Column32): Uint32Array {
  return data.slice(0, length);
}
