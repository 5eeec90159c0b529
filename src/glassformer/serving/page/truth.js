// What a model says, with where it was unsure of its words, and what documents say to its numbers, dates and names.
// Nothing is told by colour alone: levels have patterns, verdicts have lines and signs.

import { clamp, make, makeSvg, stepOf } from "./elements.js";
import { probable, quoted } from "./tokens.js";

const SIGNS = { supported: "✓", contradicted: "✗", "not found": "?", "not checked": "–" };
const WIDE = 80; // characters of a line in an exported picture

export function draw(view, panel, { frame }) {
  const evidence = make("section", { class: "evidence", "aria-live": "polite", "aria-label": "Evidence" });
  const said = make("p", { class: "said", "aria-live": "polite" });
  const marks = [...view.spans, ...view.sentences];
  const buttons = marks.map((mark, i) => spanButton(mark, i, () => choose(i)));

  function choose(chosen) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
    for (const piece of picture.querySelectorAll("[data-mark]")) {
      piece.classList.toggle("chosen", piece.dataset.mark === String(chosen));
    }
    evidence.replaceChildren(...evidenceOf(marks[chosen]));
  }

  const picture = statement(view, (token) => { said.textContent = tokenInWords(view, token); }, choose);
  const made = frame({
    name: "truth",
    title: `Judged: ${view.whose}`,
    picture,
    svg: () => asSvg(view),
    table: () => asNumbers(view),
    data: () => view,
  });
  const asked = view.asked ? [make("p", {}, "Asked: ", make("q", {}, view.asked))] : [];
  panel.append(...asked, made.element, said, legend(view), make("p", { class: "risk" }, view.risk_says));
  panel.append(make("h2", {}, "Numbers, dates and names"), make("p", { class: "checked" }, view.checked));
  if (!marks.length) panel.append(make("p", {}, "There is nothing to check in it: no number, date or name."));
  panel.append(make("div", { class: "spans", role: "group", "aria-label": "What was checked" }, ...buttons), evidence);
  if (view.tokens.length) said.textContent = tokenInWords(view, leastSure(view));
  const doubtful = marks.findIndex((mark) => mark.verdict !== "supported");
  if (marks.length) choose(Math.max(0, doubtful));
}

function levelOf(view, token) {
  return view.levels.findIndex((level) => token.probability >= level.least);
}

function leastSure(view) {
  return view.tokens.reduce((least, token, i) => (token.probability < view.tokens[least].probability ? i : least), 0);
}

function tokenInWords(view, i) {
  const token = view.tokens[i];
  const sure = `${probable(token.probability)} (${view.levels[levelOf(view, token)].name})`;
  return `${quoted(token.text)}: probability ${sure}, entropy ${token.entropy.toFixed(2)} nats.`;
}

// --- The statement --------------------------------------------------------------------------------------------------

// The statement cut wherever a token or a span begins or ends: [{ text, token, span }], numbers or null.
export function pieces(view) {
  const characters = [...view.statement];
  const [tokens, spans] = [characters.map(() => null), characters.map(() => null)];
  let place = view.begins;
  view.tokens.forEach((token, i) => {
    const end = place + [...token.text].length;
    tokens.fill(i, place, end);
    place = end;
  });
  view.spans.forEach((span, i) => spans.fill(i, span.start, span.end));
  const found = [];
  characters.forEach((character, i) => {
    const last = found.at(-1);
    if (last && last.token === tokens[i] && last.span === spans[i]) last.text += character;
    else found.push({ text: character, token: tokens[i], span: spans[i] });
  });
  return found;
}

// Arrow keys go from token to token; a click on a span shows its evidence.
function statement(view, say, choose) {
  const boxes = [];
  const parts = pieces(view);
  const elements = parts.map((piece, i) => {
    const level = piece.token === null ? "given" : `level-${levelOf(view, view.tokens[piece.token])}`;
    const span = view.spans[piece.span];
    const last = parts[i + 1]?.span !== piece.span;
    const verdict = span ? ` span ${verdictClass(span)}` : "";
    const attributes = { class: `piece ${level}${verdict}`, "data-token": piece.token, "data-mark": piece.span };
    const element = make("span", attributes, piece.text, span && last ? make("sup", {}, SIGNS[span.verdict]) : null);
    if (piece.token !== null) boxes.push(element);
    return element;
  });
  const label = "The statement: arrow keys go from token to token";
  const box = make("p", { class: "statement", tabindex: 0, role: "application", "aria-label": label }, ...elements);
  let at = -1;
  const take = (token) => {
    at = token;
    for (const each of boxes) each.classList.toggle("at", each.dataset.token === String(token));
    say(token);
  };
  const under = (event) => event.target.closest(".piece");
  box.addEventListener("pointerover", (event) => {
    if (under(event)?.dataset.token) take(Number(under(event).dataset.token));
  });
  box.addEventListener("click", (event) => {
    if (under(event)?.dataset.token) take(Number(under(event).dataset.token));
    if (under(event)?.dataset.mark) choose(Number(under(event).dataset.mark));
  });
  box.addEventListener("keydown", (event) => {
    const by = stepOf(event);
    if (by && view.tokens.length) take(clamp(at + by[0] + by[1], view.tokens.length - 1));
  });
  return box;
}

function verdictClass(span) {
  return `verdict-${span.verdict.replace(" ", "-")}`;
}

function legend(view) {
  const levels = view.levels.map((level, i) => {
    const name = `${level.name}: ${between(level.least, view.levels[i - 1]?.least ?? null)}`;
    return make("li", {}, make("span", { class: `piece level-${i}` }, "token"), ` ${name}`);
  });
  const kinds = Object.entries(view.verdicts).map(([verdict, says]) => {
    const kind = { class: `piece span ${verdictClass({ verdict })}` };
    return make("li", {}, make("span", kind, "1815", make("sup", {}, SIGNS[verdict])), ` ${says}`);
  });
  const given = view.tokens.length ? [] : [make("li", {}, "no shades: the model gave no probabilities")];
  return make("ul", { class: "legend", "aria-label": "Legend" }, ...(view.tokens.length ? levels : given), ...kinds);
}

// "20 to 50 %"
function between(least, most) {
  const [from, to] = [Math.round(100 * least), Math.round(100 * most)];
  if (most === null) return `${from} % or more`;
  return least ? `${from} to ${to} %` : `under ${to} %`;
}

// --- Evidence -------------------------------------------------------------------------------------------------------

function spanButton(mark, i, click) {
  const attributes = { type: "button", class: verdictClass(mark), "aria-pressed": "false", "data-button": i, click };
  const text = mark.kind === "claim" ? "the whole sentence" : mark.text;
  return make("button", attributes, `${SIGNS[mark.verdict]} ${text}: ${mark.says}`);
}

const NOT_LOOKED_UP = "It was not looked up: there were no documents to look in.";
const NO_EVIDENCE = "No evidence found: the documents that were searched do not have it.";

function evidenceOf(mark) {
  const kind = mark.kind === "claim" ? "sentence" : mark.kind;
  const title = make("h3", {}, `${quoted(mark.text)} (${kind}): ${mark.says}`);
  if (mark.verdict === "not checked") return [title, make("p", {}, NOT_LOOKED_UP)];
  if (!mark.evidence.length) return [title, make("p", {}, NO_EVIDENCE)];
  const quotes = mark.evidence.map((each) => {
    const [characters, [from, to]] = [[...each.quote], each.answer ?? [0, 0]];
    const cut = (start, end) => characters.slice(start, end).join("");
    const quote = make("blockquote", {}, cut(0, from), make("mark", {}, cut(from, to)), cut(to));
    const place = make("cite", {}, `${each.document}, characters ${each.start}–${each.end}`);
    return make("li", {}, quote, place);
  });
  return [title, make("ul", { class: "quotes" }, ...quotes)];
}

// --- Table and picture ----------------------------------------------------------------------------------------------

function asNumbers(view) {
  const spanAt = (i) => {
    const own = pieces(view).filter((piece) => piece.token === i && piece.span !== null);
    return [...new Set(own.map((piece) => view.spans[piece.span].says))].join("; ");
  };
  return {
    caption: `Tokens of ${view.whose}`,
    columns: ["token", "probability", "entropy (nats)", "how sure", "documents"],
    rows: view.tokens.map((token, i) => [
      token.text, token.probability, token.entropy, view.levels[levelOf(view, token)].name, spanAt(i),
    ]),
  };
}

// Lines of fixed width: levels as bars of one to three strokes below the words, verdicts as signs.
function asSvg(view) {
  const [width, height] = [9, 30];
  const flat = pieces(view).flatMap((piece) => [...piece.text].map((character) => ({ ...piece, character })));
  const rows = Math.max(1, Math.ceil(flat.length / WIDE));
  const box = `0 0 ${width * WIDE + 16} ${height * rows + 40}`;
  const picture = makeSvg("svg", { viewBox: box, role: "img", "font-size": 14 }, makeSvg("title", {}, view.statement));
  flat.forEach(({ character, token, span }, i) => {
    const [x, y] = [8 + width * (i % WIDE), 20 + height * Math.floor(i / WIDE)];
    const level = token === null ? 0 : levelOf(view, view.tokens[token]);
    const box = { x, y: y - 14, width, height: 18, fill: "var(--raised)", stroke: "var(--rule)" };
    if (span !== null) picture.append(makeSvg("rect", box));
    picture.append(makeSvg("text", { x, y, fill: "var(--text)", "font-family": "monospace" }, character));
    for (let stroke = 0; stroke < level; stroke += 1) {
      const below = y + 4 + 3 * stroke;
      const line = { x1: x, x2: x + width, y1: below, y2: below, stroke: "var(--focus)", "stroke-width": 1.5 };
      picture.append(makeSvg("line", line));
    }
    if (span !== null && flat[i + 1]?.span !== span) {
      const small = { x: x + width - 2, y: y - 8, fill: "var(--text)", "font-size": 10 };
      picture.append(makeSvg("text", small, SIGNS[view.spans[span].verdict]));
    }
  });
  const about = "lines: less sure, unsure, very unsure; ✓ supported, ✗ contradicted, ? no evidence, – not checked";
  picture.append(makeSvg("text", { x: 8, y: height * rows + 30, fill: "var(--quiet)", "font-size": 11 }, about));
  return picture;
}
