// Attention as lines: arcs over one text, or from the tokens of a target to those of its source.

import { make, makeSvg } from "./elements.js";
import { shown, tokenList } from "./tokens.js";

const FAINT = 0.04; // shares below it get no line
const STEP = 26; // pixels from a token of the arcs to the next
const ROW = 28; // the same in a column, as in style.css
const LETTER = 8; // pixels of the tokens below the arcs

export function arcs(map, rows) {
  const width = STEP * (map.keys.length + 1);
  const height = Math.min(220, 40 + (STEP * map.keys.length) / 2);
  const x = (place) => STEP * (place + 1);
  const whole = height + 20 + LETTER * Math.max(...map.keys.map((token) => cut(shown(token)).length));
  const box = { viewBox: `0 0 ${width} ${whole}`, width, height: whole, role: "img" };
  const label = "Arcs from tokens to those that they look at";
  const picture = makeSvg("svg", { ...box, "font-size": 12, "aria-label": label });
  const paths = map.queries.map(() => []);
  rows.forEach((row, query) =>
    row.forEach((share, k) => {
      if (share < FAINT) return;
      const path = makeSvg("path", { d: arc(x(query), x(k), height), fill: "none" });
      paths[query].push([path, share]);
      picture.append(path);
    }),
  );
  const words = map.keys.map((token, place) => {
    const at = { x: x(place) + 4, y: height + 10, transform: `rotate(-90 ${x(place) + 4} ${height + 10})` };
    return makeSvg("text", { ...at, "text-anchor": "end" }, cut(shown(token)));
  });
  picture.append(...words);

  function mark(query) {
    paths.forEach((each, q) => each.forEach(([path, share]) => paint(path, share, q === query)));
    words.forEach((word, k) => paintWord(word, k === query));
  }
  return { element: make("div", { class: "scroll" }, picture), svg: () => picture, mark };
}

function paint(path, share, chosen) {
  path.setAttribute("stroke", chosen ? "var(--focus)" : "var(--quiet)");
  path.setAttribute("stroke-width", chosen ? 1 + 4 * share : 1);
  path.setAttribute("stroke-opacity", chosen ? Math.max(share, 0.3) : share / 3);
  path.setAttribute("class", chosen ? "chosen" : "");
}

function paintWord(word, chosen) {
  word.setAttribute("fill", chosen ? "var(--focus)" : "var(--text)");
  word.setAttribute("font-weight", chosen ? "bold" : "normal");
}

// Half an ellipse; a loop for a token that looks at itself.
function arc(from, to, ground) {
  if (from === to) return `M ${from} ${ground} c -10 -22 10 -22 0 0`;
  const [wide, high] = [Math.abs(from - to) / 2, Math.min(Math.abs(from - to) / 2, ground - 8)];
  return `M ${from} ${ground} A ${wide} ${high} 0 0 ${from > to ? 0 : 1} ${to} ${ground}`;
}

function cut(word) {
  return word.length > 12 ? `${word.slice(0, 11)}…` : word;
}

// Cross-attention: the source on the left, the target on the right, a line wherever one looks at the other.
export function lines({ map }, rows, choose, settle) {
  const source = tokenList(map.keys, { label: "Source", column: true });
  const label = "Target: the chosen token looks at the source";
  const target = tokenList(map.queries, { label, column: true, choose, settle });
  const height = ROW * Math.max(map.keys.length, map.queries.length);
  const box = { viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "lines" };
  const drawn = makeSvg("svg", { ...box, height }, ...links(rows, { left: 0, right: 100, top: 0 }));
  const titles = [make("h3", {}, "source"), make("span"), make("h3", {}, "target")];
  const element = make("div", { class: "sides" }, ...titles, source.element, drawn, target.element);
  let chosen = 0;
  function mark(query, row) {
    chosen = query;
    source.mark(null, row);
    target.mark(query, null);
    for (const line of drawn.children) paintLine(line, line.dataset.query === String(query));
  }
  return { element, mark, svg: () => alone(map, rows, chosen, height) };
}

// The chosen lines can be seen whatever their share, as the chosen arcs; the others fade with it.
function paintLine(line, chosen) {
  const share = Number(line.dataset.share);
  line.classList.toggle("chosen", chosen);
  line.setAttribute("stroke", chosen ? "var(--focus)" : "var(--quiet)");
  line.setAttribute("stroke-width", chosen ? 1 + 4 * share : 1);
  line.setAttribute("stroke-opacity", chosen ? Math.max(share, 0.4) : share);
}

function links(rows, { left, right, top }) {
  return rows.flatMap((row, query) =>
    [...row.entries()].filter(([, share]) => share >= FAINT).map(([k, share]) => {
      const ends = { x1: left, y1: top + ROW * (k + 0.5), x2: right, y2: top + ROW * (query + 0.5) };
      const line = makeSvg("line", { ...ends, "data-query": query, "data-share": share });
      paintLine(line, false);
      return line;
    }),
  );
}

function alone(map, rows, chosen, height) {
  const write = (anchor, x) => (token, place) =>
    makeSvg("text", { x, y: ROW * (place + 0.5) + 5, fill: "var(--text)", "text-anchor": anchor }, shown(token));
  const drawn = links(rows, { left: 160, right: 320, top: 0 });
  for (const line of drawn.filter((each) => each.dataset.query === String(chosen))) paintLine(line, true);
  const words = [...map.keys.map(write("end", 150)), ...map.queries.map(write("start", 330))];
  const title = makeSvg("title", {}, "From the target, right, to the source, left");
  return makeSvg("svg", { viewBox: `0 0 480 ${height}`, "font-size": 13 }, title, ...drawn, ...words);
}
