// All heads of all layers in one grid: a row for each layer, a column for the mean and one for each head.

import { make, makeSvg } from "./elements.js";
import { revealing, roving, thumbnail } from "./heatmap.js";
import { shares } from "./shares.js";

const SIZE = 40; // pixels of a head in the exported picture

export function headName(patterns, head) {
  if (patterns.length === 1) return "the only head";
  return head === null ? "mean of all" : `head ${head}`;
}

export function headGrid(state, choose) {
  const { map } = state;
  const only = map.patterns[0].length === 1;
  const columns = only ? [null] : [null, ...map.patterns[0].keys()];
  const at = { row: state.layer, column: columns.indexOf(state.head) };
  const cells = map.patterns.map((_, layer) => columns.map((head, c) => headCell(state, layer, head, c)));
  const mean = only ? "head" : "mean";
  const names = columns.map((head) => make("th", { scope: "col" }, head === null ? mean : `${head}`));
  const rows = cells.map((each, layer) => make("tr", {}, make("th", { scope: "row" }, `layer ${layer}`), ...each));
  const top = make("thead", {}, make("tr", {}, make("td", { class: "corner" }, "head →"), ...names));
  const attributes = { role: "grid", class: "heat grid-of-heads", "aria-label": "Heads" };
  const table = make("table", attributes, top, make("tbody", {}, ...rows));

  const show = revealing();

  function mark(row, column) {
    cells[at.row][at.column].tabIndex = -1;
    cells[at.row][at.column].removeAttribute("aria-selected");
    Object.assign(at, { row, column });
    cells[row][column].tabIndex = 0;
    cells[row][column].setAttribute("aria-selected", "true");
    show(cells[row][column]);
  }

  roving(table, at, [cells.length, columns.length], () => {}, (row, column) => {
    mark(row, column);
    choose(row, columns[column]);
  });
  mark(at.row, at.column);
  const element = make("div", { class: "scroll" }, table);
  return { picture: element, svg: () => picture(cells, columns), table: () => numbers(map, columns) };
}

function headCell(state, layer, head, column) {
  const matrix = state.map.queries.map((_, query) => shares({ ...state, layer, head, query }));
  const tags = head === null ? [] : (state.map.tags?.[layer][head] ?? []);
  const says = [`Layer ${layer}, ${headName(state.map.patterns[layer], head)}`, ...tags].join(", ");
  const attributes = { role: "gridcell", "data-row": layer, "data-column": column, "aria-label": says, title: says };
  const drawn = thumbnail(matrix, state.map.keys.length);
  const cell = make("td", { ...attributes, class: tags.length ? "tagged" : null }, drawn);
  cell.tabIndex = -1;
  return cell;
}

function picture(cells, columns) {
  const [width, height] = [70 + (SIZE + 4) * columns.length, 24 + (SIZE + 4) * cells.length];
  const title = makeSvg("title", {}, "All heads");
  const drawn = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, "font-size": 12 }, title);
  const write = (x, y, words) => drawn.append(makeSvg("text", { x, y, fill: "var(--text)" }, words));
  columns.forEach((head, c) => write(70 + (SIZE + 4) * c, 16, head === null ? "mean" : head));
  cells.forEach((row, layer) => {
    write(6, 24 + (SIZE + 4) * layer + SIZE / 2, `layer ${layer}`);
    row.forEach((cell, c) => {
      const box = { x: 70 + (SIZE + 4) * c, y: 24 + (SIZE + 4) * layer, width: SIZE, height: SIZE };
      const href = cell.firstChild.toDataURL();
      drawn.append(makeSvg("rect", { ...box, fill: "var(--raised)" }));
      drawn.append(makeSvg("image", { ...box, href, preserveAspectRatio: "none", "image-rendering": "pixelated" }));
    });
  });
  return drawn;
}

// So many matrices as numbers: what each head looks at most.
function numbers(map, columns) {
  const rows = map.patterns.map((heads, layer) => [
    `layer ${layer}`,
    ...columns.map((head) => {
      const means = meanRow(map, layer, head);
      const best = means.indexOf(Math.max(...means));
      return `${map.keys[best].trim() || "␣"} ${means[best].toFixed(2)}`;
    }),
  ]);
  const names = columns.map((head) => (head === null ? "mean" : `head ${head}`));
  const caption = "The token that each head looks at most, and its share, over all tokens that look";
  return { caption, columns: ["", ...names], rows };
}

function meanRow(map, layer, head) {
  const sums = map.keys.map(() => 0);
  for (const query of map.queries.keys()) {
    shares({ map, layer, head, query }).forEach((share, k) => {
      sums[k] += share / map.queries.length;
    });
  }
  return sums;
}
