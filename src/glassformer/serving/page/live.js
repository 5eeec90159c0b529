// The page as a server gives it out: a form for a model and a text, and documents that are asked for when needed.

import { make } from "./elements.js";
import { VIEWS } from "./panels.js";
import { report, show } from "./shell.js";
import { ask, models } from "./server.js";

export async function begin(page) {
  let known;
  try {
    known = await models(key);
  } catch (error) {
    if (!error.forPeople) throw error;
    report(`The server did not say which models it has: ${error.message}`);
    if (error.status === 401) keyForm(page);
    return;
  }
  report(null);
  form(page, known);
}

let secret = null; // the server's key, where it wants one; it is forgotten with the page

function key() {
  return secret;
}

function keyForm(page) {
  const input = make("input", { type: "password", id: "api-key", autocomplete: "off" });
  const button = make("button", { type: "submit" }, "Use this key");
  fillForm([make("label", {}, "The server's key ", input), button], () => {
    secret = input.value;
    begin(page);
  });
}

function fillForm(children, submit) {
  const old = document.getElementById("ask");
  const form = old.cloneNode(false);
  form.hidden = false;
  form.append(...children);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  old.replaceWith(form);
}

function form(page, known) {
  const options = () => known.map((model) => make("option", { value: model.id }, model.id));
  const model = make("select", { id: "model-choice" }, ...options());
  const other = make("select", { id: "compare-choice" }, make("option", { value: "" }, "nothing"), ...options());
  const text = make("textarea", { id: "text-choice", rows: 2, required: true, placeholder: "A text to look at" });
  const target = make("input", { id: "target-choice", placeholder: "its own" });
  const from = make("input", { id: "patch-choice", placeholder: "a text of as many tokens" });
  const submit = () => {
    look(page, { text: text.value, target: target.value, from: from.value }, [model.value, other.value]);
  };
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    submit();
  });
  const compare = known.length > 1 ? make("label", {}, "compare with ", other) : null;
  const more = [
    make("label", {}, "target (of a translator) ", target),
    make("label", {}, "patch from ", from),
  ];
  const first = make("div", { class: "controls" }, make("label", {}, "Model ", model), ...(compare ? [compare] : []));
  const button = make("button", { type: "submit" }, "Look inside");
  const last = make("div", { class: "controls" }, ...more, button);
  fillForm([first, make("label", { class: "wide" }, "Text ", text), last], submit);
  text.focus();
}

function look(page, { text, target, from }, names) {
  if (!text) return;
  page.shown?.stop();
  const chosen = [...new Set(names.filter(Boolean))];
  const fields = { text, ...(target ? { target } : {}), ...(from ? { patch_from: from } : {}) };
  const asked = chosen.map((name) => ({
    name,
    about: name,
    live: true,
    has: () => true,
    ask: (view, options, work) => ask({ model: name, view, ...fields }, options, key, work),
  }));
  page.shown = show({ title: text, views: Object.keys(VIEWS), models: asked, first: "attention" });
}
