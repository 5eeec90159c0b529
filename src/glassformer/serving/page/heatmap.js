// Heat maps: small ones that are painted, and large ones that are tables, so that every number can be reached and read.

import { clamp, make, makeSvg, stepOf } from "./elements.js";

const INK = 0xc77e30; // blue, green, red; stands out from light and from dark paper
const CELL = { squares: [16, 16], words: [64, 20], numbers: [44, 20] }; // of an exported picture, in pixels
const HEADS = 96; // the same: of the heads of rows
const COLUMNS = { squares: 88, words: 24, numbers: 38 };

// A matrix [Q][K] of shares, a dot each; rows may end early. It is a picture only: what it shows is said beside it.
export function thumbnail(matrix, width) {
  const canvas = make("canvas", { width, height: matrix.length, class: "thumbnail", "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, matrix.length);
  const dots = new Uint32Array(image.data.buffer);
  matrix.forEach((row, q) => {
    for (let k = 0; k < row.length; k += 1) dots[q * width + k] = (Math.round(255 * Math.sqrt(row[k])) << 24) | INK;
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

// The colour of a value from -1 to 1, for an attribute.
export function tint(value) {
  const share = Math.round(100 * Math.min(Math.abs(value), 1));
  return `color-mix(in srgb, var(${value < 0 ? "--cold" : "--warm"}) ${share}%, var(--paper))`;
}

// Moves what scrolls around a cell, and nothing else, so that the cell can be seen. Heads that stay cover a part of it.
export function reveal(cell) {
  const box = cell.closest(".scroll");
  if (!box?.clientWidth) return; // it is hidden
  const [outer, inner] = [box.getBoundingClientRect(), cell.getBoundingClientRect()];
  const left = outer.left + cell.parentElement.firstChild.offsetWidth;
  const top = outer.top + cell.closest("table").tHead.offsetHeight;
  const missing = (from, to, least, most) => (from < least ? from - least : Math.max(0, to - most));
  const across = missing(inner.left, inner.right, left, outer.left + box.clientWidth);
  const down = missing(inner.top, inner.bottom, top, outer.top + box.clientHeight);
  if (across || down) box.scrollBy({ left: across, top: down, behavior: "instant" });
}

// The same before the next picture of the page, once, however often a cell was chosen until then.
export function revealing() {
  let next = null;
  return (cell) => {
    if (next === null) requestAnimationFrame(() => {
      reveal(next);
      next = null;
    });
    next = cell;
  };
}

// A table of which one cell is chosen, by the pointer or the arrow keys.
//   rows, columns: [{ text, title }]; corner: what the rows are;
//   cell(row, column): { text, value, says, number }: what stands in it, its colour from -1 to 1, the same in words,
//     and what a plain table says
//   choose(row, column): is told of every choice; settle(row, column): of those by a click or a key
export function heatTable({ caption, corner, rows, columns, cell, choose, settle = () => {}, kind }) {
  const table = make("table", { role: "grid", class: `heat ${kind}`, "aria-label": caption });
  const heads = columns.map((column) => make("th", { scope: "col", title: column.title ?? null }, ...column.parts));
  table.append(make("thead", {}, make("tr", {}, make("td", { class: "corner" }, corner), ...heads)));
  const cells = rows.map((_, r) => columns.map((_, c) => tableCell(cell(r, c), r, c)));
  const lines = rows.map((row, r) =>
    make("tr", {}, make("th", { scope: "row", title: row.title ?? null }, row.text), ...cells[r]),
  );
  table.append(make("tbody", {}, ...lines));
  const at = { row: 0, column: 0 };
  const show = revealing();

  function mark(row, column) {
    const before = cells[at.row][at.column];
    before.tabIndex = -1;
    before.removeAttribute("aria-selected");
    Object.assign(at, { row, column });
    cells[row][column].tabIndex = 0;
    cells[row][column].setAttribute("aria-selected", "true");
    show(cells[row][column]);
  }

  function take(row, column) {
    mark(row, column);
    choose(row, column);
  }

  roving(table, at, [rows.length, columns.length], take, settle);
  const numbers = () => ({
    caption,
    columns: [corner, ...heads.map((head) => head.textContent)],
    rows: rows.map((row, r) => [row.text, ...columns.map((_, c) => cell(r, c).number ?? cell(r, c).text)]),
  });
  const svg = () => heatSvg({ caption, rows, columns: heads.map((head) => head.textContent), cell, kind });
  return { element: make("div", { class: "scroll" }, table), mark, take, numbers, svg, at };
}

// The pointer and the keys move among cells with data-row and data-column.
export function roving(table, at, [rows, columns], take, settle) {
  const cellOf = (event) => event.target.closest("td[data-row]");
  const move = (row, column) => {
    take(row, column);
    settle(row, column);
    table.querySelector(`td[data-row="${row}"][data-column="${column}"]`).focus();
  };
  table.addEventListener("pointerover", (event) => {
    const found = cellOf(event);
    if (found && event.pointerType !== "touch") take(Number(found.dataset.row), Number(found.dataset.column));
  });
  table.addEventListener("click", (event) => {
    const found = cellOf(event);
    if (found) move(Number(found.dataset.row), Number(found.dataset.column));
  });
  table.addEventListener("keydown", (event) => {
    const step = stepOf(event);
    if (step) move(clamp(at.row + step[0], rows - 1), clamp(at.column + step[1], columns - 1));
  });
}

function tableCell({ text, value, says }, row, column) {
  const cell = make("td", { role: "gridcell", "data-row": row, "data-column": column, "aria-label": says }, text);
  cell.tabIndex = -1;
  cell.classList.toggle("back", value < 0);
  cell.style.setProperty("--share", Math.min(Math.abs(value), 1));
  return cell;
}

function heatSvg({ caption, rows, columns, cell, kind }) {
  const [[width, height], top] = [CELL[kind], COLUMNS[kind]];
  const box = `0 0 ${HEADS + width * columns.length + 8} ${top + height * rows.length + 8}`;
  const picture = makeSvg("svg", { viewBox: box, role: "img", "font-size": 12 }, makeSvg("title", {}, caption));
  const write = (x, y, words, more = {}) => {
    picture.append(makeSvg("text", { x, y, fill: "var(--text)", ...more }, words));
  };
  columns.forEach((column, c) => {
    const [x, y] = [HEADS + width * (c + 0.5), top - 6];
    if (kind === "squares") write(x + 4, y, cut(column, 12), { transform: `rotate(-90 ${x + 4} ${y})` });
    else write(x, y, cut(column, 9), { "text-anchor": "middle" });
  });
  rows.forEach((row, r) => {
    const middle = top + height * (r + 0.5) + 4;
    write(HEADS - 6, middle, cut(row.text, 13), { "text-anchor": "end" });
    columns.forEach((_, c) => {
      const { text, value } = cell(r, c);
      const corner = { x: HEADS + width * c, y: top + height * r };
      picture.append(makeSvg("rect", { ...corner, width, height, fill: tint(value), stroke: "var(--raised)" }));
      if (text) write(corner.x + width / 2, middle, cut(text, 9), { "text-anchor": "middle" });
    });
  });
  return picture;
}

function cut(words, most) {
  return words.length > most ? `${words.slice(0, most - 1)}…` : words;
}
