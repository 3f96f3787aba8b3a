/** Makes `work` remember what it found out about data, which never changes. */
export function remember<K extends object, V>(work: (of: K) => V): (of: K) => V {
  const known = new WeakMap<K, V>();
  return (of) => {
    let found = known.get(of);
    if (found === undefined) {
      found = work(of);
      known.set(of, found);
    }
    return found;
  };
}
