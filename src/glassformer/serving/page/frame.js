// What stands around every picture: its title, the same as a table, and ways to keep it as a file.

import { make } from "./elements.js";
import { asPng, save, standalone } from "./export.js";
import { asJson } from "./unpack.js";

// name: of the files; title: in words; picture: an element; svg(): the picture as an SVG element that stands alone
// table(): { caption, columns, rows: [[head, …], …] }; data(): what is kept as JSON
// heat: a heatTable in place of picture, svg and table
// whose: what the names of files begin with
export function frame({ name, title, picture, heat, svg = heat?.svg, table = heat?.numbers, data, whose = "" }) {
  const place = make("div", { class: "numbers-table scroll", hidden: true });
  const toggle = make("button", { type: "button", "aria-pressed": "false", click: () => turn(place.hidden) }, "Table");
  const drawn = picture ?? heat.element;
  const file = whose + name;

  function turn(on) {
    toggle.setAttribute("aria-pressed", on);
    place.hidden = !on;
    place.replaceChildren(...(on ? [asTable(table())] : []));
  }

  const button = (label, says, click) => make("button", { type: "button", "aria-label": says, click }, label);
  const text = () => standalone(svg());
  const tools = [
    toggle,
    button("PNG", `${title} as PNG`, async () => save(await asPng(text()), `${file}.png`)),
    button("SVG", `${title} as SVG`, () => save(new Blob([text()], { type: "image/svg+xml" }), `${file}.svg`)),
    button("JSON", `${title}: its numbers as JSON`, () => {
      save(new Blob([asJson(data())], { type: "application/json" }), `${file}.json`);
    }),
  ];
  const label = `${title}: as table or file`;
  const bar = make("div", { class: "bar-of-tools", role: "group", "aria-label": label }, ...tools);
  const heading = make("figcaption", {}, title);
  const element = make("figure", { class: "frame", "data-name": name }, heading, bar, drawn, place);
  // What the picture shows has changed: a table that stands open is made anew.
  const changed = (words = title) => {
    heading.textContent = words;
    if (!place.hidden) turn(true);
  };
  return { element, changed };
}

export function asTable({ caption, columns, rows }) {
  const heads = columns.map((column) => make("th", { scope: "col" }, column));
  const lines = rows.map(([head, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, String(head)), ...cells.map((cell) => make("td", {}, String(cell)))),
  );
  const head = make("thead", {}, make("tr", {}, ...heads));
  return make("table", { class: "plain" }, make("caption", {}, caption), head, make("tbody", {}, ...lines));
}
