// The row of tokens that stands above all views: how much each surprised the model, and which one is looked at.

import { clamp, make, makeSvg } from "./elements.js";
import { tint } from "./heatmap.js";
import { probable, quoted, shown, tokenList } from "./tokens.js";

const MOST = 12; // bits of surprisal that have the full colour
const LINE = 900; // pixels in a line of the exported picture

export function draw(view, panel, { selection, frame }) {
  const { side, tokens } = view;
  const said = make("p", { class: "said", "aria-live": "polite" });
  const shares = view.surprisals.map((bits) => Math.min((bits ?? 0) / MOST, 1));
  const list = tokenList(tokens, {
    label: "Tokens, shaded by surprisal",
    choose: mark,
    settle: (place) => selection.choose(side, place),
    below: (place) => (view.probabilities[place] === null ? "–" : probable(view.probabilities[place])),
  });

  function mark(place) {
    list.mark(place, shares);
    said.textContent = inWords(view, place);
  }

  selection.count(side, tokens.length);
  selection.follow((chosen, place) => chosen === side && mark(clamp(place, tokens.length - 1)));
  const title = `${view.source ? "Target" : "Text"}, shaded by surprisal, with probabilities`;
  const shapes = { picture: list.element, svg: () => picture(view, shares), table: () => table(view) };
  const framed = frame({ name: "tokens", title, ...shapes });
  if (view.source) panel.append(source(view, selection));
  panel.append(framed.element, said);
  mark(clamp(selection.place(side), tokens.length - 1));
}

// What a translator reads: no numbers, but its tokens can be chosen.
function source(view, selection) {
  const last = view.source.length - 1;
  const settle = (place) => selection.choose("text", place);
  const list = tokenList(view.source, { label: "Source", choose: (place) => list.mark(place, null), settle });
  selection.count("text", view.source.length);
  selection.follow((side, place) => side === "text" && list.mark(clamp(place, last), null));
  list.mark(clamp(selection.place("text"), last), null);
  return make("div", { class: "source" }, make("h3", {}, "Source"), list.element);
}

function inWords(view, place) {
  const where = `${quoted(view.tokens[place])}, position ${place}`;
  if (view.unscored) return `${where}: ${view.unscored}`;
  if (view.probabilities[place] === null) return `${where}: nobody asked the model for this token.`;
  const [probability, rank, bits] = [view.probabilities[place], view.ranks[place], view.surprisals[place]];
  const best = view.words[place].map((word, i) => `${quoted(word)} ${probable(view.shares[place][i])}`).join(", ");
  const numbers = `probability ${probable(probability)}, rank ${rank}, surprisal ${bits.toFixed(1)} bits`;
  return `${where}: ${numbers}, ${view.question}. Most probable here: ${best}.`;
}

function table(view) {
  const columns = ["position", "token", "probability", "rank", "surprisal in bits", "most probable"];
  const rows = view.tokens.map((token, place) => {
    const numbers = [view.probabilities, view.ranks, view.surprisals].map((each) => each[place] ?? "–");
    return [place, shown(token), ...numbers, view.words[place] ? shown(view.words[place][0]) : "–"];
  });
  return { caption: "Each token with what the model gave it", columns, rows };
}

function picture(view, shares) {
  let [x, y] = [8, 8];
  const boxes = view.tokens.flatMap((token, place) => {
    const width = 14 + 8 * shown(token).length;
    if (x + width > LINE) [x, y] = [8, y + 44];
    const box = { x, y, width, height: 38, rx: 4, fill: tint(shares[place]), stroke: "var(--rule)" };
    const middle = { x: x + width / 2, "text-anchor": "middle" };
    const small = view.probabilities[place] === null ? "–" : probable(view.probabilities[place]);
    x += width + 4;
    return [
      makeSvg("rect", box),
      makeSvg("text", { ...middle, y: y + 17, fill: "var(--text)" }, shown(token)),
      makeSvg("text", { ...middle, y: y + 32, fill: "var(--quiet)", "font-size": 10 }, small),
    ];
  });
  const title = makeSvg("title", {}, `Tokens of “${view.text}”, shaded by surprisal`);
  return makeSvg("svg", { viewBox: `0 0 ${LINE + 8} ${y + 46}`, "font-size": 13 }, title, ...boxes);
}
