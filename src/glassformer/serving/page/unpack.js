// Documents as panels read them: patterns that came packed become rows of numbers, as in those that did not.

const UNIT = 1e4;

export function unpacked(view) {
  for (const map of view.maps ?? []) if (map.patterns.ten_thousandths !== undefined) map.patterns = rows(map.patterns);
  return view;
}

function rows({ shape: [layers, heads, queries, keys], ten_thousandths: text }) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const units = new DataView(bytes.buffer);
  const shares = Float64Array.from({ length: bytes.length / 2 }, (_, i) => units.getUint16(2 * i, true) / UNIT);
  const counted = (count) => [...Array(count).keys()];
  const row = (l, h, q) => {
    const begin = ((l * heads + h) * queries + q) * keys;
    return shares.subarray(begin, begin + keys);
  };
  return counted(layers).map((l) => counted(heads).map((h) => counted(queries).map((q) => row(l, h, q))));
}

// JSON of a document: typed rows are written as arrays, without the zeros at their end.
export function asJson(value) {
  return JSON.stringify(value, (_, each) => (each instanceof Float64Array ? shortened(each) : each));
}

function shortened(row) {
  let end = row.length;
  while (end && row[end - 1] === 0) end -= 1;
  return Array.from(row.subarray(0, end));
}
