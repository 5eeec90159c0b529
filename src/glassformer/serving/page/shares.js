// How attention is divided: of one head or the mean of all, with or without the token that most of it goes to.

const MOST = 0.2; // of all attention: a key that gets less, or less than twice its equal part, is no sink

// How the chosen query divides its attention over the keys; `head` null is the mean of all heads. Without the `sink`,
// what is left is shown as the whole.
export function shares({ map, layer, head, query, sink = null }) {
  const rows = map.patterns[layer].map((each) => each[query]);
  const chosen = head === null ? rows : [rows[head]];
  const all = map.keys.map((_, k) => chosen.reduce((sum, row) => sum + (row[k] ?? 0), 0) / chosen.length);
  if (sink === null) return all;
  const rest = 1 - all[sink];
  return all.map((share, k) => (k === sink || rest < 1e-3 ? 0 : share / rest));
}

// The key that most attention goes to (Xiao et al. 2023), with its part of all; null where none stands out.
export function strongestSink(map) {
  const sums = map.keys.map(() => 0);
  let queries = 0;
  for (const layer of map.patterns) {
    for (const head of layer) {
      for (const row of head) {
        queries += 1;
        for (let k = 0; k < row.length; k += 1) sums[k] += row[k];
      }
    }
  }
  const key = sums.indexOf(Math.max(...sums));
  const share = sums[key] / queries;
  return map.keys.length > 2 && share >= MOST && share * map.keys.length >= 2 ? { key, share } : null;
}

export function pickSink(state, hidden, sink, draw) {
  state.sink = hidden ? sink.key : null;
  draw();
}
