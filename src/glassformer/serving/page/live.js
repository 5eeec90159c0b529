// The page as a server gives it out: a form for a model and a text, and documents that are asked for when needed.

import { PLACES, keep, kept } from "./address.js";
import { curl } from "./calls.js";
import { make } from "./elements.js";
import { VIEWS } from "./panels.js";
import { report, show } from "./shell.js";
import { ask, bodyOf, models } from "./server.js";

const INTRODUCTION = "Write a text and press Enter: the page shows what happens in the model while it reads it.";
const WRITERS = ["encoder-decoder", "recurrent network", "convolutions"]; // families that write a target

export async function begin(page) {
  const about = document.getElementById("model");
  about.textContent = "Asking the server which models it has …";
  let known;
  try {
    known = await models(key);
  } catch (error) {
    if (!error.forPeople) throw error;
    return error.status === 401 ? keyForm(page) : tryAgain(page, error.message);
  } finally {
    about.textContent = "";
  }
  report(null);
  form(page, known);
}

const WANTED = "This server wants a key. Whoever started it knows it, from --api-key or GLASSFORMER_API_KEY.";
let secret = null; // the server's key, where it wants one; it is forgotten with the page

function key() {
  return secret;
}

function tryAgain(page, why) {
  report(`The server did not say which models it has: ${why}`);
  fillForm([make("button", { type: "submit" }, "Try again")], () => begin(page));
}

function keyForm(page) {
  report(secret === null ? WANTED : `That is not the key. ${WANTED}`);
  const input = make("input", { type: "password", id: "api-key", autocomplete: "off" });
  const button = make("button", { type: "submit" }, "Use this key");
  fillForm([make("div", { class: "controls" }, make("label", {}, "The server's key ", input), button)], () => {
    secret = input.value;
    begin(page);
  });
  input.focus();
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
  const { values } = kept();
  const options = (chosen) => known.map(({ id }) => make("option", { value: id, selected: id === chosen }, id));
  const model = make("select", { id: "model-choice" }, ...options(values.get("model")));
  const nothing = make("option", { value: "" }, "nothing");
  const other = make("select", { id: "compare-choice" }, nothing, ...options(values.get("compare")));
  const text = make("textarea", { id: "text-choice", rows: 2, required: true, placeholder: "A text to look at" });
  const target = make("input", { id: "target-choice", placeholder: "its own" });
  const from = make("input", { id: "patch-choice", placeholder: "a text of as many tokens" });
  const writes = make("label", {}, "target (of a translator) ", target);
  const chosen = () => [...new Set([model.value, other.value])].map((id) => known.find((each) => each.id === id));
  const named = () => chosen().filter(Boolean);
  const changed = () => {
    writes.hidden = !named().some(takesTarget);
  };
  const submit = () => look(page, { text: text.value, target: target.value, patch_from: from.value }, named());
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    submit();
  });
  model.addEventListener("change", changed);
  other.addEventListener("change", changed);
  const compare = known.length > 1 ? make("label", {}, "compare with ", other) : null;
  const first = make("div", { class: "controls" }, make("label", {}, "Model ", model), compare);
  const button = make("button", { type: "submit" }, "Look inside");
  const last = make("div", { class: "controls" }, writes, make("label", {}, "patch from ", from), button);
  fillForm([first, make("label", { class: "wide" }, "Text ", text), last], submit);
  for (const [input, name] of [[text, "text"], [target, "target"], [from, "patch_from"]]) {
    input.value = values.get(name) ?? "";
  }
  changed();
  if (text.value) return submit(); // somebody was sent a link
  document.getElementById("model").textContent = INTRODUCTION;
  text.focus();
}

// What is not known of a model is not held against it.
function takesTarget(model) {
  return !model.family || WRITERS.includes(model.family);
}

function look(page, fields, chosen) {
  if (!fields.text) return;
  page.shown?.stop();
  const link = { model: chosen[0].id, compare: chosen[1]?.id ?? null, ...fields };
  const { values } = kept();
  const places = Object.values(PLACES).map((name) => [name, null]);
  keep({ ...(fields.text === values.get("text") ? {} : Object.fromEntries(places)), ...link });
  const models = chosen.map((model) => asked(model, fields));
  page.shown = show({ title: fields.text, views: Object.keys(VIEWS), models, first: "attention" });
}

// A model as `show` has it, which is asked for its documents of a text.
function asked(model, fields) {
  const given = Object.entries(fields).filter(([name, value]) => value && (name !== "target" || takesTarget(model)));
  const body = (view) => ({ model: model.id, view, ...Object.fromEntries(given) });
  return {
    name: model.id,
    about: [model.id, model.family, model.shape].filter(Boolean).join(" · "),
    live: true,
    has: () => true,
    ask: (view, options, work) => ask(bodyOf(body(view), options), key, work),
    command: (view, options) => curl(bodyOf(body(view), options, false), key() !== null),
  };
}
