// The page: a tab for each document, drawn when it is first opened. Documents stand in the page as JSON, in script
// elements of the class "document"; src/glassformer/serving/documents.py says what is in them.

import { draw as drawAttention } from "./attention.js";
import { clamp, make, stepOf } from "./elements.js";
import { draw as drawLens } from "./lens.js";
import { draw as drawPatching } from "./patching.js";

const VERSION = 1;

const VIEWS = {
  attention: { title: "Attention", draw: drawAttention },
  lens: { title: "Lens", draw: drawLens },
  patching: { title: "Patching", draw: drawPatching },
};

window.addEventListener("error", (event) => {
  const problem = document.getElementById("problem");
  problem.hidden = false;
  problem.textContent = `This view could not be drawn: ${event.message}`;
});

export function show(views) {
  const tabs = views.map((view, i) => tab(view, () => open(i)));
  const panels = views.map(({ view }) =>
    make("section", { id: `panel-${view}`, role: "tabpanel", "aria-labelledby": `tab-${view}`, hidden: true }),
  );

  function open(chosen) {
    tabs.forEach((each, i) => {
      each.setAttribute("aria-selected", i === chosen);
      each.tabIndex = i === chosen ? 0 : -1;
      panels[i].hidden = i !== chosen;
    });
    history.replaceState(null, "", `#${views[chosen].view}`);
    if (!panels[chosen].dataset.drawn) drawInto(views[chosen], panels[chosen]);
  }

  const bar = document.getElementById("tabs");
  bar.replaceChildren(...tabs);
  bar.addEventListener("keydown", (event) => {
    const step = stepOf(event);
    if (!step) return;
    const now = tabs.indexOf(document.activeElement);
    const next = clamp(now + step[0] + step[1], tabs.length - 1);
    open(next);
    tabs[next].focus();
  });
  document.getElementById("panels").replaceChildren(...panels);
  header(views[0]);
  const asked = views.findIndex((view) => `#${view.view}` === location.hash);
  open(Math.max(asked, 0));
}

function tab(view, click) {
  const attributes = { type: "button", role: "tab", id: `tab-${view.view}`, "aria-controls": `panel-${view.view}` };
  return make("button", { ...attributes, click }, VIEWS[view.view]?.title ?? view.view);
}

function drawInto(view, panel) {
  panel.dataset.drawn = "yes";
  if (view.version !== VERSION || !(view.view in VIEWS)) {
    const came = `this is “${view.view}”, version ${view.version}`;
    panel.append(make("p", {}, `This page draws version ${VERSION} of its documents; ${came}.`));
  } else if (view.missing) {
    panel.append(make("p", { class: "missing" }, `Not for this model: ${view.missing}`));
  } else {
    VIEWS[view.view].draw(view, panel);
    panel.append(make("p", { class: "note" }, saved(view)));
  }
}

function saved(view) {
  const data = new Blob([JSON.stringify(view)], { type: "application/json" });
  const link = make("a", { href: "#", download: `${view.view}.json` }, "These numbers as JSON");
  link.addEventListener("click", () => {
    link.href = URL.createObjectURL(data);
  });
  return link;
}

function header(view) {
  document.title = `${view.text} – ${view.model || "Glassformer"}`;
  document.getElementById("text").textContent = view.text;
  document.getElementById("model").textContent = [view.model, view.family, view.shape].filter(Boolean).join(" · ");
}

show([...document.querySelectorAll("script.document")].map((element) => JSON.parse(element.textContent)));
