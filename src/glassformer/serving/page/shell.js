// What stands around the views: the row of tokens, a tab for each view, and one panel a tab in which a model's document
// is drawn, or two models' side by side. Where documents come from (the page itself, a server) is the `models`' matter:
//   models: [{ name, about, ask(view, options, { onProgress, signal }) → a promise of the document }]

import { PLACES, keep, kept, number } from "./address.js";
import { callOf } from "./calls.js";
import { make, stepOf, clamp } from "./elements.js";
import { frame } from "./frame.js";
import { reveal } from "./heatmap.js";
import { makeSelection } from "./selection.js";
import { asJson, unpacked } from "./unpack.js";
import { draw as drawTokens } from "./textrow.js";
import { save } from "./export.js";
import { VIEWS } from "./panels.js";

const VERSION = 1;
const PATIENCE = 200; // milliseconds that a view which has come waits for the row of tokens to be painted

export function report(message) {
  const problem = document.getElementById("problem");
  problem.hidden = message === null;
  problem.textContent = message ?? "";
}

// Shows a text: `views` are the names of the tabs, `models` as above. Returns { open, step, stop, tabs }.
export function show({ title, views, models, first = null }) {
  const begin = { text: number(PLACES.text), target: number(PLACES.target) };
  const selection = makeSelection(begin, (side, place) => keep({ [PLACES[side]]: place }));
  const work = new AbortController();
  const tabs = views.map((view) => tabOf(view, () => open(view)));
  const panels = views.map(panelOf);
  const bar = freshBar();

  function open(view) {
    const chosen = views.indexOf(view);
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", i === chosen);
      tab.tabIndex = i === chosen ? 0 : -1;
      panels[i].hidden = i !== chosen;
    });
    keep({ view });
    panels[chosen].querySelectorAll("td[aria-selected]").forEach(reveal); // they were chosen while nothing was seen
    if (panels[chosen].dataset.drawn) return;
    panels[chosen].dataset.drawn = "yes";
    fill(panels[chosen], view, VIEWS[view]?.draw, { models, selection, work, before: row });
  }

  bar.replaceChildren(...tabs);
  bar.addEventListener("keydown", (event) => {
    const step = stepOf(event);
    if (!step) return;
    const next = clamp(tabs.indexOf(document.activeElement) + step[0] + step[1], tabs.length - 1);
    open(views[next]);
    tabs[next].focus();
  });
  document.getElementById("panels").replaceChildren(...panels);
  header(title, models);
  const place = document.getElementById("row");
  place.replaceChildren();
  const hasRow = models.some((model) => model.has("tokens"));
  const filled = () => fill(place, "tokens", drawTokens, { models, selection, work });
  const row = hasRow ? new Promise((done) => filled().finally(() => done(painted()))) : null;
  const asked = [kept().view, first].find((view) => views.includes(view));
  if (views.length) open(asked ?? views[0]);
  return { open, step: selection.step, stop: () => work.abort(), views };
}

// A bar without the listeners of the text before.
function freshBar() {
  const old = document.getElementById("tabs");
  const bar = old.cloneNode(false);
  old.replaceWith(bar);
  return bar;
}

function tabOf(view, click) {
  const attributes = { type: "button", role: "tab", id: `tab-${view}`, "aria-controls": `panel-${view}` };
  return make("button", { ...attributes, click }, VIEWS[view]?.title ?? view);
}

function panelOf(view) {
  return make("section", { id: `panel-${view}`, role: "tabpanel", "aria-labelledby": `tab-${view}`, hidden: true });
}

function header(title, models) {
  document.title = `${title} – ${models.map((model) => model.name).join(" | ") || "Glassformer"}`;
  document.getElementById("text").textContent = title;
  document.getElementById("model").textContent = models.map((model) => model.about).join(" | ");
}

// One model's document fills the panel; those of two stand side by side.
function fill(panel, view, draw, { models, ...rest }) {
  const having = models.filter((model) => model.has(view));
  if (models.length === 1) return begin(panel, view, draw, having[0], rest);
  const places = having.map((model) => make("section", { "aria-label": model.name }));
  const columns = having.map((model, i) => {
    return make("div", { class: "side" }, make("h2", { class: "whose" }, model.name), places[i]);
  });
  panel.append(make("div", { class: "pair" }, ...columns));
  const sides = { ...rest, pair: true };
  return Promise.all(having.map((model, i) => begin(places[i], view, draw, model, sides)));
}

// When what was drawn can be seen. Windows in the background paint nothing.
function painted() {
  return new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
}

function pause(milliseconds) {
  return new Promise((done) => setTimeout(done, milliseconds));
}

// `before`: a promise that drawing waits for, though not long: a large view keeps the browser from painting others.
async function begin(place, view, draw, model, { selection, work, before = null, pair = false }) {
  const own = new AbortController();
  const signal = AbortSignal.any([own.signal, work.signal]);
  const bar = make("progress", { max: 1, "aria-label": `${VIEWS[view]?.title ?? view}: how much is done` });
  const stop = make("button", { type: "button", class: "stop", click: () => own.abort() }, "Stop");
  const again = () => begin(place, view, draw, model, { selection, work, pair });
  const onProgress = (share) => {
    bar.value = share;
  };
  if (model.live) place.replaceChildren(make("p", { class: "working" }, bar, " ", stop));
  try {
    const found = unpacked(await model.ask(view, null, { onProgress, signal }));
    if (model.live && before) await Promise.race([before, pause(PATIENCE)]);
    if (work.signal.aborted) return;
    place.replaceChildren();
    drawInto(place, found, draw, { selection, model, pair, signal: work.signal });
  } catch (error) {
    if (work.signal.aborted) return;
    if (!own.signal.aborted && !error.forPeople) throw error;
    const words = own.signal.aborted ? "Stopped." : error.message;
    const retry = make("button", { type: "button", click: again }, "Try again");
    place.replaceChildren(make("p", { class: "missing", role: "status" }, words, " ", retry));
  }
}

function drawInto(place, view, draw, { selection, model, pair, signal }) {
  if (view.version !== VERSION || !draw) {
    const came = `this is “${view.view}”, version ${view.version}`;
    place.append(make("p", {}, `This page draws version ${VERSION} of its documents; ${came}.`));
  } else if (view.missing) {
    place.append(make("p", { class: "missing" }, `Nothing to show here: ${view.missing}`));
  } else {
    let asked = null; // the options of what is shown
    const call = model.live ? callOf(() => model.command(view.view, asked)) : null;
    const ask = async (options) => {
      const found = unpacked(await model.ask(view.view, options, { onProgress: () => {}, signal }));
      asked = options;
      call.refresh();
      return found;
    };
    // Files of two models must not have the same name.
    const whose = pair ? `${model.name.replace(/[^\w.-]+/g, "-")}-` : "";
    const framed = (given) => frame({ data: () => view, ...given, whose });
    draw(view, place, { selection, frame: framed, load: model.live ? ask : null });
    if (view.view === "tokens") return;
    place.append(make("p", { class: "note" }, saved(view, whose)));
    if (call) place.append(call.element);
  }
}

function saved(view, whose) {
  const click = () => save(new Blob([asJson(view)], { type: "application/json" }), `${whose}${view.view}.json`);
  return make("button", { type: "button", class: "link", click }, "All numbers of this view as JSON");
}
