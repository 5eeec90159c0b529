// Tokens, as people read them, and lists of tokens of which one is chosen.

import { clamp, make, stepOf } from "./elements.js";

const VISIBLE = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };
const CONTROLS = 0x2400; // where Unicode has pictures of control characters

// What stands in a box or a cell: control characters, and white space that is all there is, become visible.
export function shown(token) {
  const bare = token.replace(/^ +(?=\S)/, "");
  const visible = (c) => VISIBLE[c] ?? String.fromCodePoint(CONTROLS + Math.min(c.codePointAt(0), 0x21));
  return bare.replace(/[\x00-\x1f\x7f]/g, visible).replace(/^ +$/, (spaces) => VISIBLE[" "].repeat(spaces.length));
}

export function quoted(token) {
  return `“${shown(token)}”`;
}

// "27 %"; small shares keep a digit more, and what is not nothing is not written as nothing.
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.05) return "<0.1 %";
  return `${value !== 0 && Math.abs(value) < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

// The same of a probability that a model gave, which is never nothing, however it was rounded.
export function probable(share) {
  return share < 0.0005 ? "<0.1 %" : percent(share);
}

// "embedding" for what enters the first block, else the layer that the state leaves.
export function rowName(site) {
  return site.includes("residual_pre") ? "embedding" : `layer ${/\[(\d+)\]/.exec(site)[1]}`;
}

// A list of tokens. The pointer and the arrow keys choose one: `choose(place)` is told, and `settle(place)` of what a
// click or a key chose. `element` goes into the page; `mark(place, shares)` shows which is chosen, and shades all by
// their shares (or null). `below(place)`: what stands under a token, in words.
export function tokenList(tokens, { label, column = false, choose = null, settle = () => {}, below = null }) {
  const boxes = tokens.map((token, place) => {
    const small = below ? make("small", {}, below(place)) : null;
    const attributes = { role: choose ? "option" : "listitem", class: "token", "data-place": place };
    return make("span", attributes, shown(token), small);
  });
  const role = choose ? "listbox" : "list";
  const orientation = choose ? (column ? "vertical" : "horizontal") : null;
  const attributes = { role, "aria-label": label, "aria-orientation": orientation, class: column ? "column" : "strip" };
  const element = make("div", attributes, ...boxes);
  let chosen = 0;

  function mark(place, shares) {
    chosen = place;
    boxes.forEach((box, i) => {
      if (choose) box.setAttribute("aria-selected", i === place);
      if (choose) box.tabIndex = i === place ? 0 : -1;
      box.style.setProperty("--share", shares ? (shares[i] ?? 0) : 0);
      if (!below) box.title = shares ? `${shown(tokens[i])}: ${percent(shares[i] ?? 0)}` : shown(tokens[i]);
    });
  }

  function take(place) {
    choose(place);
    settle(place);
    boxes[chosen].focus();
  }

  if (choose) {
    const boxOf = (event) => event.target.closest(".token");
    element.addEventListener("pointerover", (event) => {
      const place = Number(boxOf(event)?.dataset.place ?? chosen);
      if (event.pointerType !== "touch" && place !== chosen) choose(place);
    });
    element.addEventListener("click", (event) => {
      if (boxOf(event)) take(Number(boxOf(event).dataset.place));
    });
    element.addEventListener("keydown", (event) => {
      const step = stepOf(event);
      if (step) take(clamp(chosen + step[0] + step[1], tokens.length - 1));
    });
  }
  return { element, mark };
}
