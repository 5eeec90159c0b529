// How far the answer to one text goes over to that of another when one state of it is put in the place of its own.

import { make } from "./elements.js";
import { heatTable } from "./heatmap.js";
import { quoted, rowName, shown } from "./tokens.js";

export function draw(view, panel) {
  const said = make("p", { class: "said", "aria-live": "polite" });
  const table = heatTable({
    caption: "Rows are layers, columns are positions; each cell is the effect of patching there, in per cent",
    corner: "patched →",
    kind: "numbers",
    rows: view.sites.map((site) => ({ text: rowName(site), title: site })),
    columns: view.tokens.map((token, place) => header(token, view.other_tokens[place])),
    cell: (row, place) => {
      const effect = view.effects[row][place];
      const says = `${rowName(view.sites[row])}, ${quoted(view.tokens[place])}: ${hundredths(effect)} %`;
      return { text: hundredths(effect), value: effect, says };
    },
    choose: (row, place) => {
      said.textContent = inWords(view, row, place);
    },
  });
  const texts = [
    ...[make("dt", {}, "the text"), make("dd", {}, view.text)],
    ...[make("dt", {}, "patched from"), make("dd", {}, view.other_text)],
    ...[make("dt", {}, "measured"), make("dd", {}, measure(view))],
  ];
  panel.append(make("dl", {}, ...texts), said, table.element);
  table.take(...strongest(view.effects));
}

function measure(view) {
  const { metric, start, end } = view;
  return `${metric}: ${fixed(start)} in the text, which counts as 0 %, and ${fixed(end)} in the other, as 100 %`;
}

// Where the texts differ, the other's token stands below.
function header(token, other) {
  if (token === other) return { parts: [shown(token)] };
  const title = `${shown(token)} in the text, ${shown(other)} in the other`;
  return { title, parts: [make("b", {}, shown(token)), make("i", {}, shown(other))] };
}

function inWords(view, row, place) {
  const site = `${rowName(view.sites[row])} (${view.sites[row]})`;
  const [own, other] = [view.tokens[place], view.other_tokens[place]];
  const token = own === other ? quoted(own) : `${quoted(own)}, there ${quoted(other)},`;
  const effect = hundredths(view.effects[row][place]);
  return `With the other text's state at ${token} after ${site}, the answer goes ${effect} % of the way from `
    + `${quoted(view.answers[0])} to ${quoted(view.answers[1])}.`;
}

// The cell with the largest effect, the first of them.
function strongest(effects) {
  let best = [0, 0];
  effects.forEach((row, r) => row.forEach((effect, c) => {
    if (effect > effects[best[0]][best[1]]) best = [r, c];
  }));
  return best;
}

function hundredths(effect) {
  return minus(String(Math.round(100 * effect) + 0));
}

function fixed(value) {
  return minus(value.toFixed(2));
}

function minus(number) {
  return number.replace("-", "−");
}
