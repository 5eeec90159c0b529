// Heat maps: small ones that are painted, and large ones that are tables, so that every number can be reached and read.

import { clamp, make, stepOf } from "./elements.js";

const INK = [48, 126, 199]; // stands out from light and from dark paper

// A matrix [Q][K] of shares, a dot each; rows may end early. It is a picture only: what it shows is said beside it.
export function thumbnail(matrix, width) {
  const canvas = make("canvas", { width, height: matrix.length, class: "thumbnail", "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, matrix.length);
  matrix.forEach((row, q) =>
    row.forEach((share, k) => image.data.set([...INK, Math.round(255 * Math.sqrt(share))], 4 * (q * width + k))),
  );
  context.putImageData(image, 0, 0);
  return canvas;
}

// A table of which one cell is chosen, by the pointer or the arrow keys.
//   rows, columns: [{ text, title }]; corner: what the rows are;
//   cell(row, column): { text, value, says }: what stands in it, its colour from -1 to 1, and the same in words
//   choose(row, column): is told of every choice
export function heatTable({ caption, corner, rows, columns, cell, choose, kind }) {
  const table = make("table", { role: "grid", class: `heat ${kind}`, "aria-label": caption });
  const heads = columns.map((column) => make("th", { scope: "col", title: column.title ?? null }, ...column.parts));
  table.append(make("thead", {}, make("tr", {}, make("td", { class: "corner" }, corner), ...heads)));
  const cells = rows.map((_, r) => columns.map((_, c) => tableCell(cell(r, c), r, c)));
  const lines = rows.map((row, r) =>
    make("tr", {}, make("th", { scope: "row", title: row.title ?? null }, row.text), ...cells[r]),
  );
  table.append(make("tbody", {}, ...lines));
  const at = { row: 0, column: 0 };

  function mark(row, column) {
    const before = cells[at.row][at.column];
    before.tabIndex = -1;
    before.removeAttribute("aria-selected");
    Object.assign(at, { row, column });
    cells[row][column].tabIndex = 0;
    cells[row][column].setAttribute("aria-selected", "true");
  }

  function take(row, column) {
    mark(row, column);
    choose(row, column);
  }

  table.addEventListener("pointerover", (event) => {
    const found = event.target.closest("td[data-row]");
    if (found) take(Number(found.dataset.row), Number(found.dataset.column));
  });
  table.addEventListener("keydown", (event) => {
    const step = stepOf(event);
    if (!step) return;
    take(clamp(at.row + step[0], rows.length - 1), clamp(at.column + step[1], columns.length - 1));
    cells[at.row][at.column].focus();
  });
  return { element: make("div", { class: "scroll" }, table), mark, take };
}

function tableCell({ text, value, says }, row, column) {
  const cell = make("td", { role: "gridcell", "data-row": row, "data-column": column, "aria-label": says }, text);
  cell.tabIndex = -1;
  cell.classList.toggle("back", value < 0);
  cell.style.setProperty("--share", Math.min(Math.abs(value), 1));
  return cell;
}
