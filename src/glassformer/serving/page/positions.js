// How a model knows where a token stands: the vectors or angles of positions, and how alike those are that stand apart.

import { colourGrid, lineChart, tidy } from "./charts.js";
import { make } from "./elements.js";
import { equation, fraction, id, num, op, row, sub, sum, sup, words } from "./math.js";
import { quoted } from "./tokens.js";

export function draw(view, panel, { selection, frame }) {
  for (const part of view.parts) panel.append(partOf(part, selection, frame));
}

function partOf(part, selection, frame) {
  const name = part.title ? `positions-${part.title.split(/\W/)[0]}` : "positions";
  const title = part.title ? `${TITLES[part.kind]}: ${part.title}` : TITLES[part.kind];
  const section = make("section", { class: "positions", "aria-label": title }, make("h2", {}, title));
  section.append(make("p", {}, part.says), ...FORMULAS[part.kind]());
  const relative = part.kind === "relative";
  section.append(...table(part, name, relative, selection, frame), ...likeness(part, name, relative, frame));
  return section;
}

const COLOURS = "Blue: above 0; orange: below it; the stronger, the further from it.";

const TITLES = {
  sinusoidal: "Sines and cosines",
  learned: "Learned vectors",
  rotary: "Rotary: angles of pairs",
  relative: "Relative: a number for each distance",
};

const FORMULAS = {
  sinusoidal: () => [
    equation(call("PE", id("p"), row(num(2), id("i"))), op("="), wave("sin")),
    equation(call("PE", id("p"), row(num(2), id("i"), op("+"), num(1))), op("="), wave("cos")),
  ],
  learned: () => [equation(id("x"), op("="), sub(id("E"), words("token")), op("+"), sub(id("P"), words("position")))],
  rotary: () => [equation(sub(id("θ"), id("i")), op("="), id("p"), op("·"),
    sup(words("base"), row(op("−"), num(2), id("i"), op("/"), id("d"))))],
  relative: () => [equation(words("score"), op("="), id("q"), op("·"), id("k"), op("+"),
    sub(id("b"), row(words("head"), op(","), words("distance"))))],
};

function call(name, ...inner) {
  return row(words(name), op("("), ...inner.flatMap((each, i) => (i ? [op(","), each] : [each])), op(")"));
}

function wave(name) {
  const exponent = row(num(2), id("i"), op("/"), id("D"));
  return row(id(name), op("("), fraction(id("p"), sup(num(10000), exponent)), op(")"));
}

// The table itself: positions down, numbers across; of relative positions heads down, distances across.
function table(part, name, relative, selection, frame) {
  const said = make("p", { class: "said", "aria-live": "polite" });
  const strongest = Math.max(1e-9, ...part.values.flat().map(Math.abs));
  const rowName = (r) => (relative ? `head ${r}` : String(r));
  const grid = colourGrid({
    label: `${TITLES[part.kind]}: ${relative ? "heads" : "positions"} down, ${across(part)} across`,
    rows: part.values.length,
    columns: part.columns.length,
    value: (r, c) => part.values[r][c] / strongest,
    axes: [relative ? "head" : "position", across(part)],
    rowName: (r) => (relative ? r : rowName(r)),
    columnName: (c) => part.columns[c],
    choose: (r, c) => {
      said.textContent = inWords(part, r, c);
    },
    settle: (r) => {
      if (!relative && r < part.tokens.length) selection.choose(part.side, r);
    },
  });
  if (!relative) {
    selection.count(part.side, part.tokens.length);
    selection.follow((side, place) => {
      if (side === part.side && place < part.values.length) grid.take(place, grid.at.column);
    });
  }
  grid.take(relative ? 0 : Math.min(selection.place(part.side), part.values.length - 1), 0);
  const numbers = () => ({
    caption: `${relative ? "Added to scores" : TITLES[part.kind]}, ${across(part)} across`,
    columns: [relative ? "head" : "position", ...part.columns.map(String)],
    rows: part.values.map((values, r) => [rowName(r) + tokenAt(part, r, relative), ...values]),
  });
  const picture = make("div", { class: "scroll chart-box" }, grid.element);
  const title = `${TITLES[part.kind]}, ${sizes(part, relative)}`;
  const made = frame({ name, title, picture, svg: grid.svg, table: numbers, data: () => part });
  return [made.element, said, make("p", { class: "note" }, COLOURS)];
}

function tokenAt(part, r, relative) {
  return !relative && r < part.tokens.length ? ` ${quoted(part.tokens[r])}` : "";
}

function across(part) {
  return { rotary: "pairs of coordinates", relative: "distance from query to key" }[part.kind] ?? "dimensions";
}

function sizes(part, relative) {
  if (relative) return `${part.values.length} heads, distances up to ${part.length}`;
  const what = part.kind === "rotary" ? "pairs" : "dimensions";
  return `the first ${part.values.length} of ${part.length} positions, ${part.columns.length} of ${part.width} ${what}`;
}

function inWords(part, r, c) {
  const value = tidy(part.values[r][c], 4);
  if (part.kind === "relative") {
    const away = part.columns[c];
    const alike = part.columns.filter((_, i) => part.buckets[i] === part.buckets[c]);
    const share = alike.length > 1 ? ` Distances ${alike[0]} to ${alike.at(-1)} share it.` : "";
    return `Head ${r} adds ${value} where the key stands at distance ${tidy(away, 0)}.${share}`;
  }
  const place = `Position ${r}${tokenAt(part, r, false)}`;
  const period = `It repeats every ${tidy(part.wavelengths[c], 1)} positions (${part.period}).`;
  if (part.kind === "rotary") {
    const angle = ((r * 360) / part.wavelengths[c]) % 360;
    return `${place}, pair ${part.columns[c]}: turned by ${tidy(angle, 1)}°, cosine ${value}. ${period}`;
  }
  const kind = part.waves ? `, a ${part.waves[c]}` : "";
  return `${place}, dimension ${part.columns[c]}${kind}: ${value}. ${period}`;
}

// How alike two positions are, by their distance.
function likeness(part, name, relative, frame) {
  const said = make("p", { class: "said", "aria-live": "polite" });
  const varies = part.lowest?.some((least, i) => part.highest[i] - least > 0.001);
  const ends = varies ? [["the least", part.lowest], ["the greatest", part.highest]] : [];
  const chart = lineChart({
    label: `Similarity against distance: ${part.measure}`,
    xs: part.distances,
    lines: [
      { name: "mean", values: part.similarity },
      ...ends.map(([title, values]) => ({ name: title, values, thin: true, dashed: "4 3" })),
    ],
    axes: [relative ? "added" : "similarity", "distance"],
    low: 0,
    high: relative ? 0 : 1,
    choose: (i) => {
      const range = varies ? `, from ${tidy(part.lowest[i], 4)} to ${tidy(part.highest[i], 4)}` : "";
      said.textContent = `Distance ${tidy(part.distances[i], 0)}: ${tidy(part.similarity[i], 4)}${range}.`;
    },
  });
  chart.take(0, Math.max(0, part.distances.indexOf(0)));
  const numbers = () => ({
    caption: part.measure,
    columns: ["distance", "mean", ...ends.map(([title]) => title)],
    rows: part.distances.map((away, i) => [away, part.similarity[i], ...ends.map(([, values]) => values[i])]),
  });
  const picture = make("div", { class: "scroll chart-box" }, chart.element);
  const title = relative ? "What is added, against distance" : "Similarity against distance";
  const data = () => ({ measure: part.measure, distances: part.distances, similarity: part.similarity });
  const made = frame({ name: `${name}-similarity`, title, picture, svg: chart.svg, table: numbers, data });
  const dashed = ends.length ? "; dashed: the least and the greatest" : "";
  const note = make("p", { class: "note" }, `Shown is ${part.measure}${dashed}.`);
  const waves = ["sinusoidal", "rotary"].includes(part.kind) ? [meanOfCosines(part.kind)] : [];
  return [made.element, said, note, ...waves];
}

function meanOfCosines(kind) {
  const half = kind === "rotary" ? id("d") : id("D");
  const share = fraction(num(2), half);
  return equation(words("similarity"), op("("), id("Δ"), op(")"), op("="), share,
    sum(id("i"), row(id("cos"), op("("), id("Δ"), op("·"), sub(id("ω"), id("i")), op(")"))));
}
