// The page. Either its documents stand in it as JSON, in script elements of the class "document", or a server gave it
// out, which makes them when they are asked for. src/glassformer/serving/documents.py says what is in them.

import { listen } from "./keyboard.js";
import { begin } from "./live.js";
import { VIEWS } from "./panels.js";
import { report, show } from "./shell.js";
import { themes } from "./theme.js";

const broken = (message) => report(`This view could not be drawn: ${message}`);
window.addEventListener("error", (event) => broken(event.message));
window.addEventListener("unhandledrejection", (event) => broken(event.reason?.message ?? event.reason));

// Documents of two models stand one after the other: where a view comes again, the second model's begin.
function inlined(documents) {
  const sets = [];
  for (const view of documents) {
    if (!sets.length || sets.at(-1).some((each) => each.view === view.view)) sets.push([]);
    sets.at(-1).push(view);
  }
  const models = sets.map((set) => ({
    name: set[0].model || "Glassformer",
    about: [set[0].model, set[0].family, set[0].shape].filter(Boolean).join(" · "),
    live: false,
    has: (view) => set.some((each) => each.view === view),
    ask: async (view) => set.find((each) => each.view === view),
  }));
  const known = Object.keys(VIEWS);
  const views = [...new Set(documents.map((each) => each.view))].filter((view) => view !== "tokens");
  views.sort((a, b) => known.indexOf(a) - known.indexOf(b));
  return show({ title: documents[0].text, views, models });
}

window.addEventListener("hashchange", () => location.reload()); // somebody opened another link in this tab
themes(document.getElementById("theme"));
const documents = [...document.querySelectorAll("script.document")].map((element) => JSON.parse(element.textContent));
const keys = { shown: documents.length ? inlined(documents) : null };
listen(keys);
if (!documents.length) begin(keys);
