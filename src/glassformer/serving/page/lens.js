// What the residual stream says after every layer, at every position; and how far the final answer has come by then.

import { clamp, make, makeSvg } from "./elements.js";
import { heatTable } from "./heatmap.js";
import { probable, quoted, rowName, shown } from "./tokens.js";

const WIDTH = 460; // of the picture of ranks, in its own units
const HEIGHT = 200;
const LETTERS = { fill: "var(--quiet)", "font-size": 13 };
const MARGIN = { left: 62, right: 14, top: 16, bottom: 40 };

export function draw(view, panel, { selection, frame }) {
  const about = `Each cell is ${view.question}, if the state there were the last: ${view.readout}.`;
  const said = make("section", { class: "said", "aria-live": "polite", "aria-label": "The chosen cell" });
  const ranks = make("div", { class: "ranks" });
  const side = view.sites[0].startsWith("decoder.") ? "target" : "text";
  const last = view.tokens.length - 1;
  const table = heatTable({
    caption: `Rows are layers, columns are tokens; each cell is ${view.question}`,
    corner: "read →",
    kind: "words",
    rows: view.sites.map((site) => ({ text: rowName(site), title: site })),
    columns: view.tokens.map((token) => ({ parts: [shown(token)] })),
    cell: (row, place) => {
      const [word, probability] = [view.words[row][place][0], view.probabilities[row][place][0]];
      const says = `${quoted(word)} ${probable(probability)}`;
      return { text: shown(word), value: probability, says, number: `${shown(word)} ${probability}` };
    },
    choose,
    settle: (_, place) => selection.choose(side, place),
  });
  let curve = null;
  const picture = { picture: ranks, svg: () => curve, table: () => rankTable(view, table.at.column) };
  const framed = frame({ name: "lens-ranks", title: "Rank of the final answer", ...picture });

  function choose(row, place) {
    said.replaceChildren(...cellInFull(view, row, place));
    curve = rankPicture(view, row, place);
    ranks.replaceChildren(curve);
    const answer = quoted(view.answers[place]);
    framed.changed(`Rank of the final answer, ${answer}, by layer (1 is the most probable of all)`);
  }

  const note = make("p", { class: "note" }, `${about} The stronger the colour, the more probable.`);
  const words = frame({ name: "lens", title: "What every layer would say", heat: table });
  panel.append(note, make("div", { class: "beside" }, words.element, make("div", {}, said, framed.element)));
  selection.count(side, view.tokens.length);
  selection.follow((chosen, place) => chosen === side && table.take(table.at.row, clamp(place, last)));
  table.take(view.sites.length - 1, clamp(selection.place(side), last));
}

function rankTable(view, place) {
  const rows = view.sites.map((site, row) => [rowName(site), view.ranks[row][place]]);
  return { caption: `Rank of ${quoted(view.answers[place])}, by layer`, columns: ["layer", "rank"], rows };
}

function cellInFull(view, row, place) {
  const probabilities = view.probabilities[row][place];
  const items = view.words[row][place].map((word, i) => {
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", probabilities[i]);
    return make("li", {}, make("b", {}, shown(word)), ` ${probable(probabilities[i])}`, bar);
  });
  const where = `${rowName(view.sites[row])}, at ${quoted(view.tokens[place])} (position ${place})`;
  const rank = `The final answer, ${quoted(view.answers[place])}, is number ${view.ranks[row][place]} here.`;
  return [make("h2", {}, where), make("ol", { class: "best" }, ...items), make("p", {}, rank)];
}

// The rank of the final answer, from 1 at the top, on a logarithmic scale.
function rankPicture(view, row, place) {
  const values = view.ranks.map((each) => each[place]);
  const decades = Math.max(1, Math.ceil(Math.log10(Math.max(...values))));
  const inner = { width: WIDTH - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const x = (i) => MARGIN.left + (inner.width * i) / Math.max(1, values.length - 1);
  const y = (rank) => MARGIN.top + (inner.height * Math.log10(rank)) / decades;
  const words = values.map((rank, i) => `${rowName(view.sites[i])} ${rank}`).join(", ");
  const name = `Rank of ${quoted(view.answers[place])} by layer: ${words}`;
  const picture = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name });
  for (let decade = 0; decade <= decades; decade += 1) {
    const height = y(10 ** decade);
    const ends = { x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: height, y2: height };
    picture.append(makeSvg("line", { stroke: "var(--rule)", ...ends }));
    const label = (10 ** decade).toLocaleString("en");
    picture.append(makeSvg("text", { ...LETTERS, x: MARGIN.left - 8, y: height + 4, "text-anchor": "end" }, label));
  }
  const points = values.map((rank, i) => `${x(i)},${y(rank)}`).join(" ");
  picture.append(makeSvg("polyline", { points, fill: "none", stroke: "var(--warm)", "stroke-width": 2 }));
  values.forEach((rank, i) => {
    const title = makeSvg("title", {}, `${rowName(view.sites[i])}: ${rank}`);
    picture.append(makeSvg("circle", { cx: x(i), cy: y(rank), r: i === row ? 6 : 3, fill: "var(--text)" }, title));
  });
  for (const i of new Set([0, values.length - 1])) {
    const anchor = i ? "end" : "start";
    const name = rowName(view.sites[i]);
    picture.append(makeSvg("text", { ...LETTERS, x: x(i), y: HEIGHT - 14, "text-anchor": anchor }, name));
  }
  return picture;
}
