// Each step of the walk: what it is called, its equation, a picture of it, and its sum in words.

import { barChart, tidy } from "./charts.js";
import { make } from "./elements.js";
import { heatTable } from "./heatmap.js";
import { equation, fraction, id, num, op, root, row, sub, subsup, sum, sup, words } from "./math.js";
import { percent, quoted, shown } from "./tokens.js";

const LENGTH = "length";
const STRONGEST = 5; // tokens whose values are shown one by one

// The key that a query looks at most.
export function chosenKey(walk, query) {
  return walk.pattern[query].reduce((best, share, k, all) => (share > all[best] ? k : best), 0);
}

const T = (name) => sup(id(name), id("⊤"));
const qk = () => [id("q"), op("·"), id("k")];

function step(title, equations, about, ...rest) {
  return [make("h3", {}, title), ...equations, make("p", {}, about), ...rest];
}

// A table of numbers as a picture. rows: [{ name, numbers, angles }], a null is an empty cell. Lengths and angles are
// of another kind than the other numbers, and have no colour.
function numbers(frame, name, title, columns, rows) {
  const coloured = (r, c) => !rows[r].angles && columns[c] !== LENGTH;
  const values = rows.flatMap(({ numbers: all }, r) => all.filter((value, c) => value !== null && coloured(r, c)));
  const most = Math.max(1e-9, ...values.map(Math.abs));
  const heat = heatTable({
    caption: title,
    corner: "number",
    kind: "numbers",
    rows: rows.map((each) => ({ text: each.name })),
    columns: columns.map((column) => ({ parts: [column] })),
    cell: (r, c) => {
      const value = rows[r].numbers[c];
      if (value === null) return { text: "", value: 0, says: "nothing", number: "" };
      const says = `${rows[r].name}, ${columns[c]}: ${tidy(value, 4)}`;
      return { text: tidy(value, 2), value: coloured(r, c) ? value / most : 0, says, number: value };
    },
    choose: () => {},
  });
  heat.mark(0, 0);
  return frame({ name, title, heat, data: () => ({ columns, rows }) }).element;
}

function bars(frame, name, title, state, values, choose, digits = 2) {
  const { walk, query, key } = state;
  const label = `${title}: a bar for each token that ${quoted(walk.queries[query])} looks at`;
  const chart = barChart({ label, tokens: walk.keys, values, digits, choose });
  chart.mark(key);
  const table = () => ({
    caption: label,
    columns: ["position", "token", title],
    rows: walk.keys.map((token, k) => [k, shown(token), values[k] ?? "may not be looked at"]),
  });
  const data = () => ({ keys: walk.keys, values });
  const picture = make("div", { class: "scroll" }, chart.element);
  return frame({ name, title, picture, svg: chart.svg, table, data }).element;
}

// --- The steps ------------------------------------------------------------------------------------------------------

export function projections(state, frame) {
  const { walk, query, key } = state;
  const columns = [...walk.shown.map(String), LENGTH];
  const of = (vector, length) => [...walk.shown.map((i) => vector[i]), length];
  const names = { q: `query of ${quoted(walk.queries[query])}`, k: `key of ${quoted(walk.keys[key])}` };
  const lengths = walk.lengths;
  const rows = [
    ...turnedRows(walk, query, key, names),
    { name: names.q, numbers: of(walk.query[query], lengths.query[query]) },
    { name: names.k, numbers: of(walk.key[key], lengths.key[key]) },
    { name: `value of ${quoted(walk.keys[key])}`, numbers: of(walk.value[key], lengths.value[key]) },
  ];
  const each = (name, x) => equation(id(name), op("="), id(x), sup(id("W"), words(name.toUpperCase())));
  const about = `From x, the state of the token that looks, what is asked for; from y, that of another one, what is `
    + `offered and what is given. Each has ${walk.width} numbers in this head, `
    + `here are ${walk.shown.length} of them and the length of all.${walk.turned ? TURNED : ""}`;
  const title = `Query, key and value${walk.turned ? ", before and after they are turned" : ""}`;
  return step("1. Query, key, value", [each("q", "x"), each("k", "y"), each("v", "y")], about,
    numbers(frame, "walk-1", title, columns, rows));
}

const TURNED =
  " Before they meet, queries and keys are turned by their positions, in pairs of numbers: as they were, then turned.";

function turnedRows(walk, query, key, names) {
  if (!walk.turned) return [];
  const { angles } = walk.turned;
  const degrees = (place) => walk.shown.map((_, i) => (i % 2 ? null : (angles[place][i >> 1] * 180) / Math.PI));
  return [
    { name: `${names.q}, not turned`, numbers: [...walk.turned.query[query], walk.lengths.query[query]] },
    { angles: true, name: `angle at ${query}, in °`, numbers: [...degrees(query), null] },
    { name: `${names.k}, not turned`, numbers: [...walk.turned.key[key], walk.lengths.key[key]] },
    { angles: true, name: `angle at ${key}, in °`, numbers: [...degrees(key), null] },
  ];
}

export function scores(state, frame, choose) {
  const { walk, query, key } = state;
  const additive = walk.scoring === "additive";
  const formula = additive
    ? equation(id("s"), op("="), T("v"), id("tanh"), op("("), id("q"), op("+"), id("k"), op(")"))
    : equation(id("s"), op("="), ...qk(), op("="), sum(id("i"), row(sub(id("q"), id("i")), sub(id("k"), id("i")))));
  const about = additive ? "A small network says how well each key answers the query." : product(walk, query, key);
  const picture = bars(frame, "walk-2", "Query times key", state, walk.dots[query], choose);
  return step("2. Scores", [formula], about, picture);
}

// "0.51 · 0.20 + … = 3.14"
function product(walk, query, key) {
  const [q, k] = [walk.query[query], walk.key[key]];
  const parts = walk.shown.slice(0, 3).map((i) => `${tidy(q[i], 2)} · ${tidy(k[i], 2)}`);
  const more = walk.width > 3 ? ` + … (${walk.width} products)` : "";
  const all = `${parts.join(" + ")}${more} = ${tidy(walk.dots[query][key], 2)}`;
  return `The more query and key point the same way, the greater. For ${quoted(walk.keys[key])}: ${all}.`;
}

const LARGE = "Long vectors have large products, and with large scores the softmax would see one token alone";

export function scaling(state, frame, choose) {
  const { walk, query, key } = state;
  const scaled = walk.dots[query].map((dot, k) => dot * walk.scale + (walk.bias?.[query][k] ?? 0));
  const divided = walk.scale !== 1;
  const extra = walk.bias ? [op("+"), id("b")] : [];
  const right = divided ? fraction(row(...qk()), root(id("d"))) : id("s");
  const formula = equation(sup(id("s"), op("′")), op("="), right, ...extra);
  const sizes = divided
    ? `${LARGE}: divided by √${walk.width} = ${tidy(1 / walk.scale, 2)}`
    : "This model does not divide its scores";
  const name = quoted(walk.keys[key]);
  const bias = walk.bias ? `; ${tidy(walk.bias[query][key], 2)} is added for the distance of ${name}` : "";
  const about = `${sizes}${bias}. For ${name}: ${tidy(scaled[key], 2)}.`;
  const picture = bars(frame, "walk-3", "Scaled score", state, scaled, choose);
  return step(divided ? "3. Divided by √d" : "3. Not divided by √d", [formula], about, picture);
}

export function softmax(state, frame, choose) {
  const { walk, query, key } = state;
  const seen = walk.scores[query];
  const hidden = seen.filter((score) => score === null).length;
  const values = seen.map((score, k) => (score === null ? null : (walk.pattern[query][k] ?? 0)));
  const e = (index) => sup(id("e"), sub(id("s"), id(index)));
  const formula = equation(sub(id("a"), id("j")), op("="), fraction(e("j"), sum(id("m"), e("m"))));
  const some = `${hidden} of ${seen.length} tokens may not be looked at (✕): ${whyHidden(walk)}. `;
  const mask = hidden ? some : "Every token may be looked at. ";
  const share = seen[key] === null ? "nothing" : percent(values[key]);
  const rule = "They share 100 % among them, by e to the power of their scores";
  const about = `${mask}${rule}: ${quoted(walk.keys[key])} gets ${share}.`;
  const picture = bars(frame, "walk-4", "Share of attention", state, values, choose, 3);
  return step("4. Mask and softmax", [formula], about, picture);
}

function whyHidden(walk) {
  return walk.cross ? "they are padding" : "they come later, or lie too far back";
}

export function weighing(state, frame) {
  const { walk, query } = state;
  const shares = walk.keys.map((_, k) => walk.pattern[query][k] ?? 0);
  const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).filter((k) => shares[k] > 0);
  const part = (k) => walk.shown.map((i) => shares[k] * walk.value[k][i]);
  const [best, rest] = [order.slice(0, STRONGEST), order.slice(STRONGEST)];
  const rows = best.map((k) => ({ name: `${percent(shares[k])} of ${quoted(walk.keys[k])}`, numbers: part(k) }));
  if (rest.length) {
    const others = rest.map(part).reduce((total, each) => total.map((value, i) => value + each[i]));
    rows.push({ name: `${rest.length} others`, numbers: others });
  }
  rows.push({ name: "sum", numbers: walk.shown.map((i) => walk.mixed[query][i]) });
  const formula = equation(id("z"), op("="), sum(id("j"), row(sub(id("a"), id("j")), sub(id("v"), id("j")))));
  const about = "Each value counts as much as its token is looked at. The last row is what this head takes along.";
  return step("5. Weighted sum", [formula], about,
    numbers(frame, "walk-5", "Values, weighted", walk.shown.map(String), rows));
}

export function joining(state, frame) {
  const { walk, query } = state;
  const { joined } = walk;
  if (!joined) return step("6. Joined", [], walk.joins);
  const columns = [...joined.bias.map((_, i) => String(i)), LENGTH];
  const rows = joined.heads.map((parts, h) => ({
    name: h === walk.head ? `head ${h} (this one)` : `head ${h}`,
    numbers: [...parts[query], joined.head_lengths[h][query]],
  }));
  if (joined.bias.some((value) => value !== 0)) rows.push({ name: "bias", numbers: [...joined.bias, null] });
  rows.push({ name: "output", numbers: [...joined.output[query], joined.output_length[query]] });
  const formula = equation(words("output"), op("="),
    sum(id("h"), row(sub(id("z"), id("h")), subsup(id("W"), id("h"), id("O")))), op("+"), id("b"));
  const few = `Here are the first ${joined.bias.length} numbers, and the length of all`;
  const about = `${walk.joins} ${few}; the output is added to the residual stream.`;
  const picture = numbers(frame, "walk-6", "Parts of the output", columns, rows);
  return step("6. Joined with the other heads", [formula], about, picture);
}
