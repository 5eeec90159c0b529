// Documents as panels read them: patterns that came packed become rows of numbers, as in those that did not.

const UNIT = 1e4;

export function unpacked(view) {
  for (const map of view.maps ?? []) if (map.patterns.ten_thousandths !== undefined) map.patterns = rows(map.patterns);
  return view;
}

function rows({ shape: [layers, heads, queries, keys], ten_thousandths: text }) {
  const shares = numbers(atob(text));
  const counted = (count) => [...Array(count).keys()];
  const row = (l, h, q) => {
    const begin = ((l * heads + h) * queries + q) * keys;
    return shares.subarray(begin, begin + keys);
  };
  return counted(layers).map((l) => counted(heads).map((h) => counted(queries).map((q) => row(l, h, q))));
}

// Little-endian 16-bit numbers; there may be a million of them, for which Float64Array.from is slow.
function numbers(bytes) {
  const found = new Float64Array(bytes.length / 2);
  for (let i = 0; i < found.length; i += 1) {
    found[i] = (bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1)) / UNIT;
  }
  return found;
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
