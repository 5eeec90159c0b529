// The six steps of attention with the numbers of one head and of one token that looks, for those who learn.

import { keep, kept } from "./address.js";
import { tidy } from "./charts.js";
import { clamp, make } from "./elements.js";
import { percent, quoted, tokenList } from "./tokens.js";
import { chosenKey, joining, projections, scaling, scores, softmax, weighing } from "./walksteps.js";

export function draw(view, panel, { selection, frame, load }) {
  const state = { walks: view.walks, walk: view.walks[0], query: 0, key: 0 };
  const controls = make("form", { class: "controls" });
  const problem = make("p", { class: "problem", role: "alert", hidden: true });
  const body = make("div", { class: "walk" });
  controls.addEventListener("submit", (event) => event.preventDefault());
  let drawn = null;

  function chooseWalk(walk) {
    state.walk = walk;
    selection.count(walk.sides[0], walk.queries.length);
    state.query = clamp(selection.place(walk.sides[0]), walk.queries.length - 1);
    problem.hidden = true;
    controls.replaceChildren(...(load ? anyHead(view, state, ask) : fewHeads(state, chooseWalk)));
    drawn = drawWalk(state, body, selection, frame);
  }

  async function ask(options) {
    try {
      const { walks } = await load({ ...options, place: Math.max(0, state.query) });
      chooseWalk(walks[0]);
      keepHead(walks[0]);
    } catch (error) {
      problem.hidden = false;
      problem.textContent = `This head could not be fetched: ${error.message}`;
    }
  }

  selection.follow((side, place) => {
    if (side === state.walk.sides[0] && place < state.walk.queries.length) drawn?.choose(place);
  });
  panel.append(make("p", {}, INTRODUCTION), controls, problem, body);
  const wanted = headKept(view);
  const same = (walk) => ["site", "layer", "head"].every((name) => walk[name] === wanted[name]);
  const here = wanted && view.walks.find(same);
  chooseWalk(here || state.walk);
  if (wanted && !here && load) ask(wanted);
}

// The head that the address keeps, "site layer head", where this model has it.
function headKept(view) {
  const [site, ...place] = kept().values.get("walk")?.split(" ") ?? [];
  const [layer, head] = place.map(Number);
  const here = view.attentions.find((each) => each.site === site);
  return here && layer < here.layers && head < here.heads ? { site, layer, head } : null;
}

function keepHead({ site, layer, head }) {
  keep({ walk: `${site} ${layer} ${head}` });
}

const INTRODUCTION =
  "One token looks at the others and takes something from each. Below are the six steps of that, in one head of one "
  + "layer, with this text's numbers. Click a token to see it look; click a bar to follow one of those it looks at.";

// Of a page that is a file: the heads that were written into it.
function fewHeads(state, choose) {
  const { walk: now } = state;
  const options = state.walks.map((walk, i) => make("option", { value: i, selected: walk === now }, nameOf(walk)));
  const change = () => {
    keepHead(state.walks[Number(select.value)]);
    choose(state.walks[Number(select.value)]);
  };
  const select = make("select", { change }, ...options);
  return [make("label", {}, "Head ", select)];
}

// Of a page that a server gives: any head, which is asked for.
function anyHead(view, state, ask) {
  const { walk } = state;
  const here = view.attentions.find((each) => each.site === walk.site);
  const choice = (label, names, chosen, change) => {
    const options = names.map((name, i) => make("option", { value: i, selected: i === chosen }, String(name)));
    const select = make("select", { change: () => change(Number(select.value)) }, ...options);
    return make("label", {}, `${label} `, select);
  };
  const { site, layer, head } = walk;
  const titles = view.attentions.map((each) => each.title);
  const another = (i) => ask({ site: view.attentions[i].site, layer: 0, head: 0 });
  return [
    choice("Attention", titles, view.attentions.indexOf(here), another),
    choice("Layer", [...Array(here.layers).keys()], layer, (i) => ask({ site, layer: i, head })),
    choice("Head", [...Array(here.heads).keys()], head, (i) => ask({ site, layer, head: i })),
  ];
}

function nameOf({ title, layer, head }) {
  return `${title}, layer ${layer}, head ${head}`;
}

function drawWalk(state, place, selection, frame) {
  const { walk } = state;
  const side = walk.sides[0];
  const settle = (query) => selection.choose(side, query);
  const tokens = tokenList(walk.queries, { label: "Tokens: the chosen one looks", choose, settle });
  const said = make("p", { class: "said", "aria-live": "polite" });
  const steps = make("ol", { class: "steps" });

  function choose(query) {
    state.query = query;
    state.key = chosenKey(walk, query);
    tokens.mark(query, walk.cross ? null : walk.keys.map((_, k) => walk.pattern[query][k] ?? 0));
    drawSteps();
  }

  function chooseKey(key) {
    state.key = key;
    const from = document.activeElement?.closest?.("[data-step]")?.dataset.step;
    drawSteps();
    if (from) steps.querySelector(`[data-step="${from}"] svg`)?.focus(); // what was drawn anew keeps the focus
  }

  function drawSteps() {
    said.textContent = inWords(walk, state.query, state.key);
    const made = STEPS.map((step) => step(state, frame, chooseKey));
    steps.replaceChildren(...made.map((parts, i) => make("li", { "data-step": i + 1 }, ...parts)));
  }

  place.replaceChildren(make("h2", {}, nameOf(walk)), tokens.element, said, steps);
  choose(state.query);
  return { choose };
}

const STEPS = [projections, scores, scaling, softmax, weighing, joining];

function inWords(walk, query, key) {
  const share = walk.pattern[query][key] ?? 0;
  const verb = walk.cross ? "is about to be written and looks at" : "looks at";
  const score = walk.scores[query][key];
  const number = score === null ? "which it may not" : `score ${tidy(score, 2)}, share ${percent(share)}`;
  const from = `${quoted(walk.queries[query])} (position ${query})`;
  const to = `${quoted(walk.keys[key])} (position ${key})`;
  return `${from} ${verb} ${to}: ${number}.`;
}
