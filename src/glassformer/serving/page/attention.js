// Where every head looks: all heads of all layers small, one of them large, token by token, as arcs and as a matrix.

import { keep, kept } from "./address.js";
import { arcs, lines } from "./arcs.js";
import { clamp, make } from "./elements.js";
import { headGrid, headName } from "./heads.js";
import { heatTable } from "./heatmap.js";
import { pickSink, shares, strongestSink } from "./shares.js";
import { percent, quoted, shown, tokenList } from "./tokens.js";

export function draw(view, panel, { selection, frame }) {
  const first = view.maps[mapKept()] ?? view.maps.find((map) => map.cross) ?? view.maps[0];
  const state = { map: first, layer: 0, head: null, query: 0, sink: null };
  const controls = make("form", { class: "controls" });
  const heads = make("div", { class: "all-heads" });
  const enlarged = make("section", { class: "enlarged", "aria-label": "One head" });
  let large = null;

  function chooseMap(map) {
    Object.assign(state, { map, layer: map.patterns.length - 1, head: null, sink: null, ...headKept(view, map) });
    state.query = clamp(selection.place(querySide(view, map)), map.queries.length - 1);
    controls.replaceChildren(...mapChoice(view.maps, map, chooseMap), ...sinkChoice(state, drawAll));
    drawAll();
  }

  function drawAll() {
    const grid = headGrid(state, (layer, head) => {
      keep({ head: [view.maps.indexOf(state.map), layer, head ?? "mean"].join(".") });
      chooseHead(layer, head);
    });
    heads.replaceChildren(frame({ name: "attention-heads", title: "All heads", ...grid }).element);
    chooseHead(state.layer, state.head);
  }

  function chooseHead(layer, head) {
    Object.assign(state, { layer, head });
    large = drawHead(view, state, enlarged, { selection, frame });
  }

  selection.follow((side, place) => {
    if (side === querySide(view, state.map)) large?.choose(clamp(place, state.map.queries.length - 1));
  });
  panel.append(controls, make("div", { class: "overview" }, heads, enlarged));
  const tagged = view.maps.some((map) => map.tags?.flat(2).length);
  if (tagged) panel.append(make("p", { class: "note" }, `Tags, for this text alone: ${view.tag_rule}.`));
  for (const map of view.maps) selection.count(querySide(view, map), map.queries.length);
  chooseMap(state.map);
}

// Of the head that the address keeps, "map.layer.head", the map.
function mapKept() {
  return kept().values.get("head")?.split(".")[0];
}

// The same of its layer and head, where this map has them.
function headKept(view, map) {
  const [own, ...place] = kept().values.get("head")?.split(".") ?? [];
  const [layer, head] = place.map(Number);
  if (view.maps[own] !== map || !map.patterns[layer]) return {};
  return { layer, head: map.patterns[layer][head] ? head : null };
}

// Decoders that write a target are looked at by what they write.
function querySide(view, map) {
  return map.cross || map.site.startsWith("decoder.") ? "target" : "text";
}

function mapChoice(maps, chosen, choose) {
  if (maps.length === 1) return [];
  const options = maps.map((map, i) => make("option", { value: i, selected: map === chosen }, map.title));
  const select = make("select", { change: () => choose(maps[select.value]) }, ...options);
  return [make("label", {}, "Attention ", select)];
}

function sinkChoice(state, draw) {
  const sink = strongestSink(state.map);
  if (sink === null) return [];
  const change = () => pickSink(state, box.checked, sink, draw);
  const box = make("input", { type: "checkbox", class: "hide-sink", change });
  const about = `hide the sink: ${quoted(state.map.keys[sink.key])} gets ${percent(sink.share)} of all attention`;
  return [make("label", {}, box, ` ${about}`)];
}

function drawHead(view, state, place, { selection, frame }) {
  const { map, layer, head } = state;
  const side = querySide(view, map);
  const said = make("p", { class: "said", "aria-live": "polite" });
  const settle = (query) => selection.choose(side, query);
  const rows = map.queries.map((_, query) => shares({ ...state, query }));
  const tokens = map.cross ? lines(state, rows, choose, settle) : strip(map, choose, settle);
  const drawn = map.cross ? tokens : arcs(map, rows);
  const matrix = matrixOf(map, rows, (q, k) => {
    point(q);
    said.textContent = `${quoted(map.queries[q])} looks at ${quoted(map.keys[k])}: ${percent(rows[q][k])}`;
  }, settle);

  function point(query) {
    state.query = query;
    tokens.mark(query, rows[query]);
    if (drawn !== tokens) drawn.mark(query);
  }

  function choose(query) {
    point(query);
    matrix.mark(query, rows[query].indexOf(Math.max(...rows[query])));
    said.textContent = inWords(map, query, rows[query]);
  }

  const tags = head === null ? [] : (map.tags?.[layer][head] ?? []);
  const title = `Layer ${layer}, ${headName(map.patterns[layer], head)}`;
  const badges = tags.map((tag) => make("span", { class: "badge" }, tag));
  const arcTitle = map.cross ? `${title}: who looks where (alignment)` : `${title}: arcs`;
  const asArcs = { picture: drawn.element, svg: drawn.svg, table: matrix.numbers };
  const pictures = make("div", { class: "two" }, frame({ name: "attention-arcs", title: arcTitle, ...asArcs }).element);
  pictures.append(frame({ name: "attention-matrix", title: `${title}: matrix`, heat: matrix }).element);
  const strips = map.cross ? [] : [tokens.element];
  place.replaceChildren(make("h2", {}, title, " ", ...badges), ...strips, said, pictures);
  choose(state.query);
  return { choose };
}

function matrixOf(map, rows, choose, settle) {
  return heatTable({
    caption: "Attention: a row for each token that looks, a column for each token that is looked at",
    corner: "looks at →",
    kind: "squares",
    rows: map.queries.map((token) => ({ text: shown(token) })),
    columns: map.keys.map((token) => ({ parts: [shown(token)] })),
    cell: (q, k) => {
      const says = `${quoted(map.queries[q])} at ${quoted(map.keys[k])}: ${percent(rows[q][k])}`;
      return { text: "", value: rows[q][k], says, number: Number(rows[q][k].toFixed(4)) };
    },
    choose,
    settle,
  });
}

function inWords(map, query, row) {
  const best = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, 5);
  const list = best.filter((k) => row[k] > 0).map((k) => `${quoted(map.keys[k])} ${percent(row[k])}`);
  return `${quoted(map.queries[query])}, position ${query}, looks at: ${list.join(", ") || "nothing"}`;
}

// Self-attention: one row of tokens, of which one looks at the others.
function strip(map, choose, settle) {
  return tokenList(map.queries, { label: "Tokens: the chosen one looks at the shaded ones", choose, settle });
}
