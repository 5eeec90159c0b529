// Where every head looks: all heads of a layer small, one of them large, token by token and as a matrix.

import { make, makeSvg } from "./elements.js";
import { heatTable, thumbnail } from "./heatmap.js";
import { percent, quoted, shown, tokenList } from "./tokens.js";

const ROW = 28; // pixels between the tokens of a column, as in style.css
const FAINT = 0.04; // shares below it get no line

export function draw(view, panel) {
  const first = view.maps.find((map) => map.cross) ?? view.maps[0];
  const state = { map: first, layer: 0, head: null, query: 0 };
  const controls = make("form", { class: "controls" });
  const heads = make("div", { class: "heads", role: "group", "aria-label": "Heads of this layer" });
  const enlarged = make("section", { class: "enlarged", "aria-label": "One head" });

  function chooseMap(map) {
    Object.assign(state, { map, layer: map.patterns.length - 1, head: null, query: map.queries.length - 1 });
    controls.replaceChildren(...mapChoice(view.maps, map, chooseMap), ...layerChoice(state, chooseLayer));
    chooseLayer(state.layer);
  }

  function chooseLayer(layer) {
    state.layer = layer;
    heads.replaceChildren(...headButtons(state, chooseHead));
    chooseHead(state.head);
  }

  function chooseHead(head) {
    state.head = head;
    for (const button of heads.children) button.setAttribute("aria-pressed", button.dataset.head === String(head));
    drawHead(state, enlarged);
  }

  panel.append(controls, heads, enlarged);
  const tagged = view.maps.some((map) => map.tags?.flat(2).length);
  if (tagged) panel.append(make("p", { class: "note" }, `Tags, for this text alone: ${view.tag_rule}.`));
  chooseMap(state.map);
}

function mapChoice(maps, chosen, choose) {
  if (maps.length === 1) return [];
  const options = maps.map((map, i) => make("option", { value: i, selected: map === chosen }, map.title));
  const select = make("select", { change: () => choose(maps[select.value]) }, ...options);
  return [make("label", {}, "Attention ", select)];
}

function layerChoice(state, choose) {
  const last = state.map.patterns.length - 1;
  if (last === 0) return [];
  const output = make("output", {}, `${state.layer} of 0 to ${last}`);
  const attributes = { type: "range", min: 0, max: last, value: state.layer };
  const slider = make("input", {
    ...attributes,
    input: () => {
      output.textContent = `${slider.value} of 0 to ${last}`;
      choose(Number(slider.value));
    },
  });
  return [make("label", {}, "Layer ", slider, " ", output)];
}

// One for the mean of all heads, then one for each.
function headButtons(state, choose) {
  const patterns = state.map.patterns[state.layer];
  const kinds = patterns.length > 1 ? [null, ...patterns.keys()] : [null];
  return kinds.map((head) => {
    const tags = head === null ? [] : (state.map.tags?.[state.layer][head] ?? []);
    const matrix = state.map.queries.map((_, query) => shares({ ...state, head, query }));
    return make(
      "button",
      { type: "button", "data-head": String(head), click: () => choose(head) },
      thumbnail(matrix, state.map.keys.length),
      make("span", { class: "name" }, headName(patterns, head)),
      ...tags.map((tag) => make("span", { class: "badge" }, tag)),
    );
  });
}

function headName(patterns, head) {
  if (patterns.length === 1) return "the only head";
  return head === null ? "mean of all" : `head ${head}`;
}

// How the chosen query divides its attention over the keys; `head` null is the mean of all heads.
export function shares({ map, layer, head, query }) {
  const rows = map.patterns[layer].map((each) => each[query]);
  const chosen = head === null ? rows : [rows[head]];
  return map.keys.map((_, k) => chosen.reduce((sum, row) => sum + (row[k] ?? 0), 0) / chosen.length);
}

function drawHead(state, place) {
  const { map, layer, head } = state;
  const said = make("p", { class: "said", "aria-live": "polite" });
  const tokens = map.cross ? sideBySide(state, choose) : inOneStrip(state, choose);
  const rows = map.queries.map((_, query) => shares({ ...state, query }));
  const matrix = heatTable({
    caption: "Attention: a row for each token that looks, a column for each token that is looked at",
    corner: "looks at →",
    kind: "squares",
    rows: map.queries.map((token) => ({ text: shown(token) })),
    columns: map.keys.map((token) => ({ parts: [shown(token)] })),
    cell: (q, k) => {
      const says = `${quoted(map.queries[q])} at ${quoted(map.keys[k])}: ${percent(rows[q][k])}`;
      return { text: "", value: rows[q][k], says };
    },
    choose: (q, k) => {
      point(q);
      said.textContent = `${quoted(map.queries[q])} looks at ${quoted(map.keys[k])}: ${percent(rows[q][k])}`;
    },
  });

  function point(query) {
    state.query = query;
    tokens.mark(query, rows[query]);
  }

  function choose(query) {
    point(query);
    matrix.mark(query, rows[query].indexOf(Math.max(...rows[query])));
    said.textContent = inWords(map, query, rows[query]);
  }

  const title = `Layer ${layer}, ${headName(map.patterns[layer], head)}`;
  place.replaceChildren(make("h2", {}, title), tokens.element, said, matrix.element);
  choose(state.query);
}

function inWords(map, query, row) {
  const best = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, 5);
  const list = best.filter((k) => row[k] > 0).map((k) => `${quoted(map.keys[k])} ${percent(row[k])}`);
  return `${quoted(map.queries[query])}, position ${query}, looks at: ${list.join(", ") || "nothing"}`;
}

// Self-attention: one row of tokens, of which one looks at the others.
function inOneStrip(state, choose) {
  return tokenList(state.map.queries, { label: "Tokens: the chosen one looks at the shaded ones", choose });
}

// Cross-attention: the source on the left, the target on the right, a line wherever one looks at the other.
function sideBySide(state, choose) {
  const { map } = state;
  const source = tokenList(map.keys, { label: "Source", column: true });
  const label = "Target: the chosen token looks at the source";
  const target = tokenList(map.queries, { label, column: true, choose });
  const height = ROW * Math.max(map.keys.length, map.queries.length);
  const box = { viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "lines" };
  const lines = makeSvg("svg", { ...box, height });
  map.queries.forEach((_, query) =>
    shares({ ...state, query }).forEach((share, k) => {
      if (share < FAINT) return;
      const ends = { x1: 0, y1: ROW * (k + 0.5), x2: 100, y2: ROW * (query + 0.5) };
      lines.append(makeSvg("line", { ...ends, "data-query": query, "stroke-opacity": share }));
    }),
  );
  const titles = [make("h3", {}, "source"), make("span"), make("h3", {}, "target")];
  const element = make("div", { class: "sides" }, ...titles, source.element, lines, target.element);
  function mark(query, row) {
    source.mark(null, row);
    target.mark(query, null);
    for (const line of lines.children) line.classList.toggle("chosen", line.dataset.query === String(query));
  }
  return { element, mark };
}
