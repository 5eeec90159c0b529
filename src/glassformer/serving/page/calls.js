// The request that a view was made by, for those who want to ask for it without the page.

import { make } from "./elements.js";

// As a command of a POSIX shell. A key is not written into it: it stands in the variable that the server reads it from.
export function curl(body, withKey) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = withKey ? ' -H "Authorization: Bearer $GLASSFORMER_API_KEY"' : "";
  const address = new URL("v1/trace", document.baseURI).href;
  return `curl -s ${address}${key} -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body))}`;
}

// What opens to show the command; `command()` says what it is by then.
export function callOf(command) {
  const text = make("pre", { tabindex: 0 });
  const copy = make("button", { type: "button", class: "link", click: take }, "Copy");
  const toggle = () => {
    text.textContent = command();
    copy.textContent = "Copy";
  };
  const attributes = { class: "call", toggle };
  const element = make("details", attributes, make("summary", {}, "This view by the API"), text, copy);

  async function take() {
    try {
      await navigator.clipboard.writeText(text.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text); // a page that came over plain HTTP from elsewhere may not write there
      copy.textContent = "Selected: press Ctrl+C";
    }
  }

  const refresh = () => element.open && toggle();
  return { element, refresh };
}
