// Pictures as files. A picture is an SVG element whose colours stand in attributes and may be those of the style sheet,
// "var(--warm)": here they become the colours of the moment, so that the file needs nothing else.

const SVG = "http://www.w3.org/2000/svg";
const PAINTED = ["fill", "stroke"];
const FORBIDDEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g; // in XML
const MOST = 16000; // pixels in one direction that browsers paint

export function standalone(picture) {
  const copy = picture.cloneNode(true);
  const [, , width, height] = copy.getAttribute("viewBox").split(" ").map(Number);
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("font-family", "system-ui, sans-serif");
  copy.removeAttribute("class");
  const resolve = resolver();
  for (const element of [copy, ...copy.querySelectorAll("*")]) {
    for (const name of PAINTED) {
      if (/\(/.test(element.getAttribute(name) ?? "")) element.setAttribute(name, resolve(element.getAttribute(name)));
    }
  }
  const paper = document.createElementNS(SVG, "rect");
  const whole = { width, height, fill: resolve("var(--paper)") };
  for (const [name, value] of Object.entries(whole)) paper.setAttribute(name, value);
  copy.prepend(paper);
  return new XMLSerializer().serializeToString(copy).replace(FORBIDDEN, "\ufffd");
}

export async function asPng(text) {
  const image = new Image();
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    image.src = address;
    await image.decode();
    const scale = Math.min(2, MOST / image.width, MOST / image.height);
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(image.width * scale);
    canvas.height = Math.round(image.height * scale);
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((done) => canvas.toBlob(done, "image/png"));
  } finally {
    URL.revokeObjectURL(address);
  }
}

export function save(content, name) {
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// A function that says what a colour of the style sheet is now, as rgb(…).
function resolver() {
  const known = new Map();
  return (colour) => {
    if (!known.has(colour)) {
      const probe = document.createElement("span"); // of its own: a change above the panels would style them all anew
      probe.style.color = colour;
      document.body.append(probe);
      known.set(colour, asRgb(getComputedStyle(probe).color));
      probe.remove();
    }
    return known.get(colour);
  };
}

function asRgb(colour) {
  const found = /^color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)/.exec(colour);
  if (!found) return colour;
  return `rgb(${found.slice(1).map((part) => Math.round(255 * Number(part))).join(", ")})`;
}
