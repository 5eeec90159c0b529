// Elements of the page, made in one expression: make("p", { class: "note" }, "text", another).

const SVG = "http://www.w3.org/2000/svg";

export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

// Attributes that are null or false are left out; those of functions ("click": f) are listeners.
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Keys that move among the things of a widget of which one can be reached by Tab, as the ARIA practices say: each
// gives a step [down, right], and Home and End go to the first and the last of a row.
const STEPS = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  Home: [0, -Infinity],
  End: [0, Infinity],
};

export function stepOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in STEPS)) return null;
  event.preventDefault();
  return STEPS[event.key];
}

export function clamp(value, most) {
  return Math.min(Math.max(value, 0), most);
}
