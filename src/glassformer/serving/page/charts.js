// Pictures of many numbers: a grid of colours, lines, and bars. Each can be read by the pointer and by the arrow keys:
// it tells `choose` what is under them. `element` goes into the page, `svg()` is the same picture, to stand alone.

import { clamp, makeSvg, stepOf } from "./elements.js";
import { tint } from "./heatmap.js";
import { shown } from "./tokens.js";

const LEFT = 62; // of all pictures, in their own units
const TOP = 14;
const BOTTOM = 40;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // from a number below an axis to the next
const LEAST = 0.85; // of its own size: a picture that is wider than its place is not made smaller, but moved

// A colour for every number. rows, columns: how many; value(row, column): from -1 to 1; axes: [down, across] in words
export function colourGrid({ label, rows, columns, value, axes, choose, settle = () => {}, rowName, columnName }) {
  const cell = { width: clamp(Math.floor(900 / columns), 40), height: clamp(Math.ceil(320 / rows), 28) };
  const size = { width: cell.width * columns, height: cell.height * rows };
  const picture = canvas(label, "heat map", LEFT + size.width + 14, TOP + size.height + BOTTOM);
  for (let r = 0; r < rows; r += 1) {
    for (let c = 0; c < columns; c += 1) {
      const corner = { x: LEFT + cell.width * c, y: TOP + cell.height * r };
      picture.append(makeSvg("rect", { ...corner, ...cell, fill: tint(value(r, c)) }));
    }
  }
  labels(picture, axes, size, rowName, columnName, rows, columns);
  const frame = makeSvg("rect", { ...cell, class: "pointer", fill: "none", stroke: "var(--text)", "stroke-width": 2 });
  picture.append(frame);
  const at = { row: 0, column: 0 };

  function mark(row, column) {
    Object.assign(at, { row, column });
    frame.setAttribute("x", LEFT + cell.width * column);
    frame.setAttribute("y", TOP + cell.height * row);
  }

  function take(row, column) {
    mark(clamp(row, rows - 1), clamp(column, columns - 1));
    choose(at.row, at.column);
  }

  const placeOf = (x, y) => [Math.floor((y - TOP) / cell.height), Math.floor((x - LEFT) / cell.width)];
  listen(picture, placeOf, take, at, settle);
  return { element: picture, mark, take, at, svg: () => alone(picture) };
}

// Lines over numbers `xs`. lines: [{ name, values, dashed, thin }]
export function lineChart({ label, xs, lines, axes, choose, low, high }) {
  const size = { width: 600, height: 220 };
  const picture = canvas(label, "chart", LEFT + size.width + 14, TOP + size.height + BOTTOM);
  const all = lines.flatMap((line) => line.values);
  const [least, most] = [Math.min(low, ...all), Math.max(high, ...all)];
  const x = (i) => LEFT + (size.width * i) / Math.max(1, xs.length - 1);
  const y = (value) => TOP + (size.height * (most - value)) / (most - least || 1);
  for (const level of new Set([least, Math.max(least, Math.min(most, 0)), most])) {
    const ends = { x1: LEFT, x2: LEFT + size.width, y1: y(level), y2: y(level), stroke: "var(--rule)" };
    picture.append(makeSvg("line", ends), text(LEFT - 6, y(level) + 4, tidy(level, 2), "end"));
  }
  for (const { name, values, dashed, thin } of lines) {
    const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const pen = { stroke: thin ? "var(--quiet)" : "var(--warm)", "stroke-width": thin ? 1 : 3 };
    const line = { points, fill: "none", "stroke-dasharray": dashed ?? null, ...pen };
    picture.append(makeSvg("polyline", line, makeSvg("title", {}, name)));
  }
  labels(picture, axes, size, null, (i) => xs[i], 0, xs.length);
  const dot = makeSvg("circle", { r: 5, class: "pointer", fill: "var(--focus)" });
  picture.append(dot);
  const at = { row: 0, column: 0 };

  function take(_, column) {
    at.column = clamp(column, xs.length - 1);
    dot.setAttribute("cx", x(at.column));
    dot.setAttribute("cy", y(lines[0].values[at.column]));
    choose(at.column);
  }

  const placeOf = (px) => [0, Math.round(((px - LEFT) / size.width) * (xs.length - 1))];
  listen(picture, placeOf, take, at, () => {});
  return { element: picture, take, svg: () => alone(picture) };
}

// A bar for each token; what may not be looked at (null) has a cross. `digits` are those written above a bar.
export function barChart({ label, tokens, values, digits = 2, choose }) {
  const [width, height] = [44, 110];
  const all = values.filter((value) => value !== null);
  const [least, most] = [Math.min(0, ...all), Math.max(0, ...all)];
  const y = (value) => TOP + 14 + (height * (most - value)) / (most - least || 1);
  const picture = canvas(label, "bars", 8 + width * tokens.length + 8, TOP + height + 64);
  values.forEach((value, i) => {
    const left = 8 + width * i;
    const [from, to] = [y(Math.max(0, value ?? 0)), y(Math.min(0, value ?? 0))];
    const bar = { x: left + 6, y: from, width: width - 12, height: Math.max(1, to - from), "data-bar": i };
    const fill = value < 0 ? "var(--cold)" : "var(--warm)";
    if (value !== null) picture.append(makeSvg("rect", { ...bar, fill }));
    const says = value === null ? "✕" : tidy(value, digits);
    picture.append(text(left + width / 2, from - 4, says, "middle"));
    picture.append(text(left + width / 2, TOP + height + 48, cut(shown(tokens[i]), 6), "middle", "var(--quiet)"));
  });
  const line = { x1: 8, x2: 8 + width * tokens.length, y1: y(0), y2: y(0), stroke: "var(--rule)" };
  const box = { y: 2, width: width - 2, height: TOP + height + 56, fill: "none", stroke: "var(--text)", rx: 4 };
  const frame = makeSvg("rect", { ...box, class: "pointer" });
  picture.append(makeSvg("line", line), frame);
  const at = { row: 0, column: 0 };

  function mark(column) {
    at.column = clamp(column, tokens.length - 1);
    frame.setAttribute("x", 9 + width * at.column);
  }

  const take = (_, column) => {
    mark(column);
    choose(at.column);
  };
  listen(picture, (x) => [0, Math.floor((x - 8) / width)], () => {}, at, () => {}, take);
  return { element: picture, mark, svg: () => alone(picture) };
}

// "−0.25": with a minus that is as wide as a plus.
export function tidy(value, digits) {
  return (value + 0).toFixed(digits).replace(/^-(0(?:\.0*)?)$/, "$1").replace("-", "−");
}

function canvas(label, kind, width, height) {
  const size = { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", "font-size": 12 };
  const spoken = { tabindex: 0, role: "application", "aria-roledescription": kind, "aria-label": label };
  const picture = makeSvg("svg", { ...size, ...spoken });
  picture.style.minWidth = `${Math.round(LEAST * width)}px`;
  return picture;
}

function text(x, y, words, anchor, fill = "var(--text)") {
  return makeSvg("text", { x, y, fill, "text-anchor": anchor }, String(words));
}

function labels(picture, [down, across], size, rowName, columnName, rows, columns) {
  const below = TOP + size.height;
  picture.append(text(LEFT + size.width / 2, below + 34, across, "middle", "var(--quiet)"));
  const turned = { x: 14, y: TOP + size.height / 2, fill: "var(--quiet)", "text-anchor": "middle" };
  picture.append(makeSvg("text", { ...turned, transform: `rotate(-90 14 ${TOP + size.height / 2})` }, down));
  for (const i of ticks(columns, columnName)) {
    const x = LEFT + (rowName ? (size.width * (i + 0.5)) / columns : (size.width * i) / Math.max(1, columns - 1));
    picture.append(text(x, below + 16, columnName(i), "middle"));
  }
  for (const i of rowName ? ticks(rows, rowName) : []) {
    picture.append(text(LEFT - 6, TOP + (size.height * (i + 0.5)) / rows + 4, cut(String(rowName(i)), 6), "end"));
  }
}

// Up to nine of `count` columns or rows: where these are called by numbers, at round ones.
function ticks(count, name) {
  const every = [...Array(count).keys()];
  const round = STEPS.map((step) => every.filter((i) => name(i) % step === 0)).find((found) => found.length <= 9);
  return round?.length > 2 ? round : every.filter((i) => i % Math.ceil(count / 8) === 0);
}

function listen(picture, placeOf, take, at, settle, click = take) {
  const under = (event) => {
    const [, , width] = picture.getAttribute("viewBox").split(" ").map(Number);
    const box = picture.getBoundingClientRect();
    const scale = width / box.width;
    return placeOf((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
  };
  picture.addEventListener("pointermove", (event) => event.pointerType !== "touch" && take(...under(event)));
  picture.addEventListener("click", (event) => {
    click(...under(event));
    settle(at.row, at.column);
  });
  picture.addEventListener("keydown", (event) => {
    const step = stepOf(event);
    if (!step) return;
    click(at.row + step[0], at.column + step[1]);
    settle(at.row, at.column);
  });
}

function alone(picture) {
  const copy = picture.cloneNode(true);
  for (const name of ["tabindex", "role", "aria-roledescription", "style"]) copy.removeAttribute(name);
  copy.querySelector(".pointer")?.remove();
  return copy;
}

function cut(words, most) {
  return words.length > most ? `${words.slice(0, most - 1)}…` : words;
}
