// What the address keeps behind its "#", so that a link leads to the same: "#lens?text=A+dog&at=3". Browsers send none
// of it to a server.

const MARK = "?";

// The view that is named there, and everything else, by name.
export function kept() {
  const [view, ...rest] = location.hash.slice(1).split(MARK);
  return { view, values: new URLSearchParams(rest.join(MARK)) };
}

// Keeps some values; what is null or empty is forgotten, what is not named stays.
export function keep({ view = kept().view, ...changed }) {
  const { values } = kept();
  for (const [name, value] of Object.entries(changed)) {
    if (value === null || value === "") values.delete(name);
    else values.set(name, value);
  }
  const rest = values.toString();
  history.replaceState(null, "", `#${view}${rest ? MARK + rest : ""}`);
}

// A whole number from 0 that is kept, or null.
export function number(name) {
  const found = kept().values.get(name);
  return found !== null && /^\d{1,6}$/.test(found) ? Number(found) : null;
}

// Which token is looked at: what its place is called, by side.
export const PLACES = { text: "at", target: "target-at" };
