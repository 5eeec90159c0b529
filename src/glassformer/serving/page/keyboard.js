// Keys that work everywhere on the page but where text is written, and the list of all keys.

import { asTable } from "./frame.js";
import { make } from "./elements.js";

const KEYS = [
  ["?", "this list"],
  ["1 to 9", "open the first to the ninth view"],
  [", and .", "look at the token before, at the next: every view follows"],
  ["t", "change between light, dark and the system's theme"],
  ["/", "write another text (where a server answers)"],
  ["Tab", "go to the next thing that can be used; each row or grid is one"],
  ["arrow keys", "move within tabs, tokens and grids; every view follows"],
  ["Home, End", "go to the first or the last of a row"],
  ["Enter, Space", "press the button that has the focus"],
  ["Escape", "close this list"],
];

// `page.shown` is what `show` of shell.js returned, or null.
export function listen(page) {
  const dialog = document.getElementById("keys");
  const close = make("button", { type: "button", click: () => dialog.close() }, "Close");
  const table = asTable({ caption: "Keys", columns: ["key", "what it does"], rows: KEYS });
  dialog.append(make("h2", { id: "keys-title" }, "Keys"), table, close);
  document.getElementById("help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest("input:not([type=checkbox], [type=radio], [type=range]), textarea, select");
    if (writes || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    const act = action(event.key, page, dialog);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function action(key, page, dialog) {
  const text = document.querySelector("#ask textarea");
  if (key === "?") return () => dialog.showModal();
  if (key === "t") return () => document.getElementById("theme").click();
  if (key === "/" && text) return () => text.focus();
  if (!page.shown) return null;
  if (key === "," || key === ".") return () => page.shown.step(key === "," ? -1 : 1);
  const view = /^[1-9]$/.test(key) ? page.shown.views[Number(key) - 1] : null;
  return view ? () => page.shown.open(view) : null;
}
