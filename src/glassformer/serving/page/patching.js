// How far the answer to one text goes over to that of another when one state of it is put in the place of its own.

import { clamp, make } from "./elements.js";
import { heatTable } from "./heatmap.js";
import { quoted, rowName, shown } from "./tokens.js";

const PARTS = { residual: "residual stream", attention: "attention's output", mlp: "feed-forward's output" };

const COLOURS = "Blue: towards the other text's answer; orange: away from it.";

export function draw(view, panel, { selection, frame }) {
  const parts = [{ part: "residual", sites: view.sites, effects: view.effects }, ...(view.parts ?? [])];
  const said = make("p", { class: "said", "aria-live": "polite" });
  const place = make("div");
  let table = null;

  function choosePart(part) {
    table = tableOf(view, part, said, selection);
    const title = `Effect of patching the ${PARTS[part.part]}, in per cent`;
    place.replaceChildren(frame({ name: `patching-${part.part}`, title, heat: table }).element);
    table.take(...strongest(part.effects));
  }

  const texts = [
    ...[make("dt", {}, "the text"), make("dd", {}, view.text)],
    ...[make("dt", {}, "patched from"), make("dd", {}, view.other_text)],
    ...[make("dt", {}, "measured"), make("dd", {}, measure(view))],
  ];
  panel.append(make("dl", {}, ...texts), partChoice(parts, choosePart), said, place);
  panel.append(make("p", { class: "note" }, COLOURS));
  selection.count("text", view.tokens.length);
  selection.follow((side, at) => side === "text" && table.take(table.at.row, clamp(at, view.tokens.length - 1)));
  choosePart(parts[0]);
}

function partChoice(parts, choose) {
  const name = `part-${Math.random()}`; // two panels may stand side by side
  const labels = parts.map((part, i) => {
    const box = make("input", { type: "radio", name, value: part.part, checked: i === 0, change: () => choose(part) });
    return make("label", {}, box, ` ${PARTS[part.part]}`);
  });
  return make("fieldset", { class: "controls" }, make("legend", {}, "What is patched"), ...labels);
}

function tableOf(view, part, said, selection) {
  return heatTable({
    caption: "Rows are layers, columns are positions; each cell is the effect of patching there, in per cent",
    corner: "patched →",
    kind: "numbers",
    rows: part.sites.map((site) => ({ text: rowName(site), title: site })),
    columns: view.tokens.map((token, place) => header(token, view.other_tokens[place])),
    cell: (row, place) => {
      const effect = part.effects[row][place];
      const says = `${rowName(part.sites[row])}, ${quoted(view.tokens[place])}: ${hundredths(effect)} %`;
      return { text: hundredths(effect), value: effect, says };
    },
    choose: (row, place) => {
      said.textContent = inWords(view, part, row, place);
    },
    settle: (_, place) => selection.choose("text", place),
  });
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

function inWords(view, part, row, place) {
  const [site, effect] = [part.sites[row], hundredths(part.effects[row][place])];
  const where = part.part === "residual" ? `after ${rowName(site)}` : `of the ${PARTS[part.part]} in ${rowName(site)}`;
  const [own, other] = [view.tokens[place], view.other_tokens[place]];
  const token = own === other ? quoted(own) : `${quoted(own)}, there ${quoted(other)},`;
  return `With the other text's state at ${token} ${where} (${site}), the answer goes ${effect} % of the way from `
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
